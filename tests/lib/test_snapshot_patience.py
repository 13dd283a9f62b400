"""A snapshot's readers wait neither for a database that hangs nor for a quiet moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from django.db import OperationalError

from lib import db, snapshot
from lib.snapshot import DEAD, STALE, Snapshot


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While this event is clear, every read hangs."""
    monkeypatch.setattr(snapshot, "PATIENCE", 0.1)
    goes_on = threading.Event()
    goes_on.set()
    yield goes_on
    goes_on.set()
    db.reset()


async def test_while_the_database_hangs_the_old_value_serves_and_then_nothing(
    hanging: threading.Event,
) -> None:
    now = 1000.0

    def load() -> str:
        hanging.wait(5)
        return "read"

    kept = Snapshot(load, lambda: now)
    await kept.get()
    hanging.clear()

    now += STALE + 1
    async with asyncio.timeout(2):
        assert await kept.get() == "read"
    now += DEAD
    async with asyncio.timeout(2):
        with pytest.raises(OperationalError):
            await kept.get()


@pytest.mark.usefixtures("hanging")
async def test_changes_that_never_stop_do_not_hold_up_a_reader() -> None:
    reads = 0

    def load() -> int:
        nonlocal reads
        reads += 1
        kept.invalidate()
        return reads

    kept = Snapshot(load)

    async with asyncio.timeout(2):
        first = await kept.get()
        second = await kept.get()

    assert first < second
