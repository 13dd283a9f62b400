"""Requests and tokens a minute of a key: exact over processes, and free for who has no limit."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from lib import ledger
from lib import redis as clients
from sessions_limit import rates
from sessions_limit.errors import RateLimited
from sessions_limit.keys import Key

NOW = 1_800_000_000.0  # the beginning of a minute


@pytest.fixture
async def emptied(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[redis.asyncio.Redis]:
    # A busy test machine is not a Redis that is away.
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 5.0)
    await clients.for_requests().flushdb()
    yield clients.for_requests()
    await rates.settled()
    ledger.reset()
    await clients.for_requests().flushdb()
    await clients.close()


async def refused(key: Key, now: float | None = NOW) -> RateLimited | None:
    try:
        await rates.admit(key, "rly_1", now)
    except RateLimited as refusal:
        return refusal
    return None


async def test_two_processes_let_in_exactly_what_a_key_may_have(
    emptied: redis.asyncio.Redis, settings: Any
) -> None:
    key = Key(7, "key", None, requests_per_minute=30)
    # Two connections, as two processes have them.
    other = redis.asyncio.Redis.from_url(settings.REDIS_URL, decode_responses=True)
    names = "quota:key:7:in_flight", "quota:key:7:minutes"

    async def elsewhere(number: int) -> bool:
        given = ("admit", NOW, ledger.LEASE_SECONDS, f"other{number}", "", 30, "")
        told = await other.eval(ledger.SCRIPT, 2, *names, *given)
        return bool(told[0] == "in")

    async def here() -> bool:
        return await refused(key) is None

    calls = (call for number in range(50) for call in (here(), elsewhere(number)))
    told = await asyncio.gather(*calls)

    assert told.count(True) == 30
    assert await emptied.zcard(names[0]) == 0
    await other.aclose()


@pytest.mark.usefixtures("emptied")
async def test_a_refusal_says_what_ran_out_and_truly_when_it_returns() -> None:
    key = Key(7, "key", None, requests_per_minute=1)

    first, refusal = await refused(key), await refused(key, NOW + 10)

    assert first is None
    assert refusal is not None
    assert str(refusal) == (
        "This key has used up its 1 request a minute; the next request is possible in "
        f"{math.ceil(refusal.seconds)} s."
    )
    assert await refused(key, NOW + 10 + refusal.seconds - 1) is not None
    assert await refused(key, NOW + 10 + refusal.seconds) is None


@pytest.mark.usefixtures("emptied")
async def test_tokens_are_counted_when_an_answer_is_over() -> None:
    key = Key(7, "key", None, requests_per_minute=100, tokens_per_minute=1000)
    assert await refused(key) is None

    rates.spent(key, 2000, NOW + 5)
    await rates.settled()
    refusal = await refused(key, NOW + 5)

    assert refusal is not None
    assert "its 1,000 tokens a minute" in str(refusal)
    assert await refused(key, NOW + 5 + refusal.seconds - 1) is not None
    assert await refused(key, NOW + 5 + refusal.seconds) is None


@pytest.mark.usefixtures("emptied")
async def test_a_refused_request_counts_nothing() -> None:
    key = Key(7, "key", None, requests_per_minute=2)

    told = [await refused(key) for _ in range(20)]

    # Of two in the minute before, one has faded when half of this minute is over.
    assert told[:2] == [None, None]
    assert all(told[2:])
    assert await refused(key, NOW + 91) is None


@pytest.mark.usefixtures("emptied")
async def test_keys_count_each_for_itself_and_apart_from_accounts() -> None:
    one, two = (Key(number, "key", None, requests_per_minute=1) for number in (1, 2))
    await ledger.enter("account:1", ledger.Allowance(requests=1), "x", NOW)

    assert [await refused(key) for key in (one, two)] == [None, None]


async def test_without_redis_a_process_counts_alone(settings: Any) -> None:
    url = settings.REDIS_URL
    await clients.close()
    settings.REDIS_URL = "unix:///nowhere/s"
    ledger.reset()
    key = Key(7, "key", None, requests_per_minute=2, tokens_per_minute=100)

    told = [await refused(key, None) for _ in range(3)]
    ledger.reset()
    rates.spent(key, 5000)
    await rates.settled()
    spent = await refused(key, None)

    assert told[:2] == [None, None]
    assert told[2] is not None
    assert spent is not None
    assert "tokens" in str(spent)
    ledger.reset()
    await clients.close()
    settings.REDIS_URL = url


async def test_a_key_without_such_limits_costs_no_call(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = settings.REDIS_URL
    await clients.close()
    settings.REDIS_URL = "unix:///nowhere/s"
    key = Key(7, "key", None)

    await rates.admit(key, "rly_1")
    rates.spent(key, 5000)

    assert not rates._telling
    assert not caplog.records
    settings.REDIS_URL = url
