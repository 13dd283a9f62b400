"""The journal hears once that Redis was away, and once that it is back, however many processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from redis import ConnectionError as NoRedis

from events.models import Condition, Event
from lib import db
from sessions_limit import alone

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
async def _as_before(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(alone, "CALM", 0.0)
    yield
    db.reset()
    await sync_to_async(connections.close_all)()


class Process:
    """What one web process knows; it does what its heartbeat does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._state, self._patch = alone._State(), monkeypatch

    async def looks(self, *, is_away: bool | None = None) -> None:
        """Note how Redis answered, if it was asked, and tell the journal what is to be told."""
        self._patch.setattr(alone, "state", self._state)
        if is_away is not None:
            alone.failed(NoRedis()) if is_away else alone.answered()
        alone.tell()
        if (telling := self._state.telling) is not None:
            await telling


async def told() -> list[str]:
    return [kind async for kind in Event.objects.order_by("id").values_list("kind", flat=True)]


async def test_of_many_processes_the_first_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = [Process(monkeypatch) for _ in range(4)]

    for process in processes * 2:
        await process.looks(is_away=True)
    assert await told() == [alone.DEGRADED]
    # Redis has just answered one of them, and the others have not asked yet.
    monkeypatch.setattr(alone, "CALM", 60.0)
    for process in processes:
        await process.looks(is_away=False)
        await processes[-1].looks()
    assert await told() == [alone.DEGRADED]
    monkeypatch.setattr(alone, "CALM", 0.0)
    for process in processes * 2:
        await process.looks(is_away=False)

    assert await told() == [alone.DEGRADED, alone.RESTORED]


async def test_at_the_same_moment_too() -> None:
    for is_alone, kinds in ((True, [alone.DEGRADED]), (False, [alone.DEGRADED, alone.RESTORED])):
        await asyncio.gather(*(db.in_thread(alone._write, is_alone) for _ in range(6)))

        assert await told() == kinds


async def test_what_a_process_left_that_ended_meanwhile_is_ended_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await Process(monkeypatch).looks(is_away=True)

    await Process(monkeypatch).looks()

    assert await told() == [alone.DEGRADED, alone.RESTORED]
    assert not await Condition.objects.aexists()


async def test_where_nothing_was_wrong_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    await Process(monkeypatch).looks()
    await Process(monkeypatch).looks(is_away=False)

    assert await told() == []
