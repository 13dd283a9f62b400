"""Which account a session is bound to: claimed once, moved, remembered, and without Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lib import redis as clients
from sessions_limit import limiter, sticky, turns
from sessions_limit.sticky import bind, move
from sessions_limit.turns import Turns

ALL = (1, 2, 3)


@pytest.fixture(autouse=True)
async def _no_binding(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    # A busy test machine is not a Redis that is away.
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 5.0)
    sticky.reset()
    await clients.for_requests().flushdb()
    yield
    sticky.reset()
    await clients.for_requests().flushdb()
    await clients.close()


def forget() -> None:
    """Be another process."""
    sticky._seen.clear()


async def test_a_hundred_first_requests_of_a_session_land_together() -> None:
    async def claim() -> int:
        forget()
        return await bind(1, "one", ALL, ALL)

    assert len(set(await asyncio.gather(*(claim() for _ in range(100))))) == 1


async def test_new_sessions_take_turns_exactly() -> None:
    landed = await asyncio.gather(*(bind(1, f"session-{n}", ALL, ALL) for n in range(99)))

    assert Counter(landed) == {1: 33, 2: 33, 3: 33}
    assert int(await clients.for_requests().get(limiter.TURNS) or 0) == 99


async def test_groups_that_alternate_starve_nobody_over_two_processes() -> None:
    landed: Counter[int] = Counter()

    for n in range(40):
        forget()
        for group in ((1, 2), (3, 4)):
            landed[await bind(1, f"session-{n}-{group[0]}", group, group)] += 1

    assert landed == {1: 20, 2: 20, 3: 20, 4: 20}


async def test_an_account_gets_as_many_turns_as_it_stands_in_its_group() -> None:
    cycle = (1, 2, 1, 3)

    landed = [await bind(1, f"session-{n}", cycle, ALL) for n in range(40)]

    assert landed == [1, 2, 1, 3] * 10


async def test_of_one_account_no_turn_is_taken() -> None:
    await bind(1, "one", (2,), ALL)

    assert await clients.for_requests().keys(f"{limiter.TURNS}*") == []


async def test_counters_of_groups_end() -> None:
    await bind(1, "one", ALL, ALL)

    (name,) = await clients.for_requests().keys(f"{limiter.TURNS}:*")
    assert 0 < await clients.for_requests().ttl(name) <= 86_400


async def test_parallel_claims_of_one_session_take_one_turn() -> None:
    for n in range(6):
        await asyncio.gather(*(bind(1, f"session-{n}", ALL, ALL) for _ in range(20)))

    assert int(await clients.for_requests().get(limiter.TURNS) or 0) == 6


async def test_a_session_belongs_to_its_key() -> None:
    assert await bind(1, "one", (1, 2), (1, 2)) == 1
    assert await bind(2, "one", (1, 2), (1, 2)) == 2


async def test_a_bound_session_stays_while_its_account_is_usable() -> None:
    account = await bind(1, "one", ALL, ALL)
    forget()

    # It may stay even where no new session would be sent.
    others = tuple(a for a in ALL if a != account)
    assert await bind(1, "one", others, ALL) == account


async def test_a_session_moves_when_its_account_leaves_and_does_not_come_back() -> None:
    account = await bind(1, "one", ALL, ALL)
    others = tuple(a for a in ALL if a != account)

    moved = await bind(1, "one", others, others)
    forget()

    assert moved in others
    assert await bind(1, "one", ALL, ALL) == moved


async def test_a_session_follows_the_account_that_served_it() -> None:
    account = await bind(1, "one", ALL, ALL)
    other = next(a for a in ALL if a != account)

    await move(1, "one", other)

    assert await bind(1, "one", ALL, ALL) == other
    forget()
    assert await bind(1, "one", ALL, ALL) == other


async def test_a_binding_lasts_an_hour_from_its_last_use() -> None:
    client = clients.for_requests()
    await bind(1, "one", ALL, ALL)
    (name,) = [key async for key in client.scan_iter("session:*")]
    assert sticky.BOUND_SECONDS - 5 < await client.ttl(name) <= sticky.BOUND_SECONDS
    await client.expire(name, 10)
    forget()

    await bind(1, "one", ALL, ALL)

    assert await client.ttl(name) > 10


async def test_a_session_seen_just_now_costs_no_call(settings: Any) -> None:
    account = await bind(1, "one", ALL, ALL)
    await clients.close()
    settings.REDIS_URL = "unix:///nowhere/s"

    assert await bind(1, "one", ALL, ALL) == account
    assert await bind(1, "one", ALL, ALL) == account

    await clients.close()


async def test_without_redis_sessions_stay_and_new_ones_take_turns(settings: Any) -> None:
    url = settings.REDIS_URL
    await clients.close()
    settings.REDIS_URL = "unix:///nowhere/s"

    landed = [await bind(1, f"session-{n}", ALL, ALL) for n in range(6)]
    again = [await bind(1, f"session-{n}", ALL, ALL) for n in range(6)]
    await move(1, "session-0", 2)

    assert Counter(landed) == {1: 2, 2: 2, 3: 2}
    assert again == landed
    assert await bind(1, "session-0", ALL, ALL) == 2
    await clients.close()
    settings.REDIS_URL = url


async def test_a_redis_that_forgot_the_script_is_told_it_again() -> None:
    await bind(1, "one", ALL, ALL)
    await clients.for_requests().script_flush()

    assert await bind(1, "two", ALL, ALL) in ALL


async def test_the_process_remembers_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sticky, "REMEMBERED", 3)

    for n in range(6):
        await bind(1, f"session-{n}", ALL, ALL)

    assert len(sticky._seen) == 3


def test_two_processes_without_sessions_differ_by_two_at_most() -> None:
    here, there = Turns(), Turns()

    landed = Counter(process.next(ALL) for _ in range(100) for process in (here, there))

    assert max(landed.values()) - min(landed.values()) <= 2


def test_a_process_remembers_only_so_many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "REMEMBERED", 3)
    mine = Turns()

    for number in range(6):
        mine.next((number, number + 1))

    assert len(mine._groups) == 3


def test_requests_without_a_session_take_turns() -> None:
    assert [sticky.turn(ALL) for _ in range(4)] == [1, 2, 3, 1]
