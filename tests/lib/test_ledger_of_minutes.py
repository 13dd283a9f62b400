"""What is counted in Redis over all processes, and alone without it: at once, and in a minute."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from lib import ledger
from lib import redis as clients
from lib.ledger import LEASE_SECONDS, Allowance, Wait
from lib.minutes import MINUTE, Count, Minutes

NOW = 1_800_000_000.0  # the beginning of a minute


@pytest.fixture
async def emptied(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[redis.asyncio.Redis]:
    # A busy test machine is not a Redis that is away.
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 5.0)
    ledger.reset()
    await clients.for_requests().flushdb()
    yield clients.for_requests()
    ledger.reset()
    await clients.for_requests().flushdb()
    await clients.close()


async def entered(allowed: Allowance, id: str, now: float | None = None) -> float | None:
    """Count one in, and return the seconds that it has to wait instead."""
    wait = await ledger.enter("one", allowed, id, now)
    return None if wait is None else wait.seconds


async def test_a_hundred_at_once_get_exactly_what_may_be_in_flight(
    emptied: redis.asyncio.Redis, settings: Any
) -> None:
    one = Allowance(in_flight=7)
    # Two connections, as two processes have them.
    other = redis.asyncio.Redis.from_url(settings.REDIS_URL, decode_responses=True)
    names = "quota:one:in_flight", "quota:one:minutes"

    async def elsewhere(number: int) -> float | None:
        given = ("admit", "", LEASE_SECONDS, f"other{number}", 7, "", "")
        told = await other.eval(ledger.SCRIPT, 2, *names, *given)
        return None if told[0] == "in" else 0.0

    here = [entered(one, f"this{number}") for number in range(50)]
    told = await asyncio.gather(*here, *(elsewhere(number) for number in range(50)))

    assert told.count(None) == 7
    assert set(told) == {None, 0.0}
    await other.aclose()


@pytest.mark.usefixtures("emptied")
async def test_who_leaves_makes_room() -> None:
    one = Allowance(in_flight=1)

    assert await entered(one, "a") is None
    assert await entered(one, "b") == 0.0
    await ledger.leave("one", "a", 0)
    assert await entered(one, "b") is None


@pytest.mark.usefixtures("emptied")
async def test_what_a_killed_process_had_in_flight_is_free_within_a_minute() -> None:
    one = Allowance(in_flight=2)
    await entered(one, "killed", NOW)
    await entered(one, "alive", NOW)

    await ledger.renew("one", ["alive"], NOW + 20)

    assert await entered(one, "new", NOW + LEASE_SECONDS - 1) == 0.0
    assert await entered(one, "new", NOW + LEASE_SECONDS + 0.1) is None
    assert await entered(one, "newer", NOW + LEASE_SECONDS + 0.1) == 0.0
    assert LEASE_SECONDS < MINUTE


@pytest.mark.usefixtures("emptied")
async def test_requests_a_minute_are_counted_over_a_sliding_minute() -> None:
    one = Allowance(requests=10)

    first = [await entered(one, "x", NOW + 30) for _ in range(11)]
    assert first[:10] == [None] * 10
    wait = first[10]
    assert wait is not None
    # Ten in the minute before leave room for one when a tenth of this minute has passed.
    assert wait == pytest.approx(36, abs=0.2)
    assert await entered(one, "x", NOW + 30 + wait - 1) is not None
    assert await entered(one, "x", NOW + 30 + wait) is None
    assert await entered(one, "x", NOW + 30 + wait) is not None
    # Two minutes later nothing of it counts.
    later = [await entered(one, "x", NOW + 240) for _ in range(11)]
    assert later.count(None) == 10


@pytest.mark.usefixtures("emptied")
async def test_tokens_a_minute_are_counted_when_an_answer_ends() -> None:
    one = Allowance(tokens=1000)

    assert await entered(one, "a", NOW) is None
    await ledger.leave("one", "a", 400, NOW + 1)
    assert await entered(one, "b", NOW + 2) is None
    await ledger.leave("one", "b", 1600, NOW + 10)

    wait = await entered(one, "c", NOW + 20)

    assert wait is not None
    # Of 2000 tokens half must fade, that is half of the next minute.
    assert wait == pytest.approx(40 + 30, abs=0.2)
    assert await entered(one, "c", NOW + 20 + wait - 1) is not None
    assert await entered(one, "c", NOW + 20 + wait) is None


@pytest.mark.usefixtures("emptied")
async def test_a_clock_that_goes_back_loses_no_count() -> None:
    one = Allowance(requests=1)
    await entered(one, "x", NOW + 61)

    assert await entered(one, "x", NOW + 59) is not None


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0, 59.9), st.integers(1, 100))
@limits(max_examples=200, deadline=None)
def test_the_told_wait_is_true(before: int, now: int, elapsed: float, limit: int) -> None:
    count = Count(before, now, elapsed)

    wait = count.wait(limit)

    assert (wait == 0) == (count.used + 1 <= limit)
    assert 0 <= wait <= 2 * MINUTE + 0.1

    def then(seconds: float) -> float:
        at = elapsed + seconds
        if at < MINUTE:
            return Count(before, now, at).used
        return Count(now, 0, at - MINUTE).used if at < 2 * MINUTE else 0

    assert then(wait) + 1 <= limit + 1e-9
    if wait > 1:
        assert then(wait - 1) + 1 > limit - 1e-9


def test_no_limit_is_no_wait_and_nothing_allowed_always_one() -> None:
    assert Count(1e9, 1e9, 0).wait(None) == 0.0
    assert Count().wait(0) == MINUTE


def test_this_process_counts_two_minutes_by_itself() -> None:
    alone = Minutes()
    alone.add("a", 3, 30)
    alone.add("a", 4, 50)
    alone.add("a", 1, 70)

    assert alone.count("a", 90) == Count(7, 1, 30)
    assert alone.count("a", 130) == Count(1, 0, 10)
    assert alone.count("a", 200) == Count(0, 0, 20)
    assert alone.count("b", 90) == Count(0, 0, 30)


async def test_without_redis_the_process_counts_alone(settings: Any) -> None:
    url = settings.REDIS_URL
    await clients.close()
    settings.REDIS_URL = "unix:///nowhere/s"
    ledger.reset()
    two, full = Allowance(requests=2), Allowance(in_flight=1)

    told = [await ledger.enter("a", two, "x") for _ in range(3)]
    places = [await ledger.enter("b", full, "x", here=here) for here in (1, 0)]
    await ledger.leave("c", "", 5000)
    spent = await ledger.enter("c", Allowance(tokens=100), "x")

    assert told[:2] == [None, None]
    assert told[2] is not None
    assert told[2].lacking == "requests"
    assert 0 < told[2].seconds < 2 * MINUTE
    assert places == [Wait(0.0, "in_flight"), None]
    assert spent is not None
    assert spent.lacking == "tokens"
    assert spent.seconds > 0
    ledger.reset()
    await clients.close()
    settings.REDIS_URL = url
