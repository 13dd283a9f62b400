"""Configured limits of an account: exact over all processes, and kept alone without Redis."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from accounts.pool import Member, Pool
from accounts.states import Kind, Status
from lib import redis as clients
from relay import ledger, quota, routing
from relay.bench import Bench
from relay.ledger import LEASE_SECONDS
from relay.minutes import MINUTE, Count, Minutes
from relay.ramp import Ramp, ramp
from relay.request import ClientRequest
from relay.trail import Trail
from sessions_limit.keys import Key
from tests.relay.conftest import Relay
from tests.relay.raw import RawClient

NOW = 1_800_000_000.0  # the beginning of a minute


def member(**fields: Any) -> Member:
    plain = Member(1, "one", Kind.OAUTH, Status.ACTIVE, None, None, None, UUID(int=1), "")
    return replace(plain, **fields)


def request() -> ClientRequest:
    key, path = Key(1, "key", None), "/v1/messages"
    agent = ((b"user-agent", b"claude-cli/2"),)
    return ClientRequest("rly_1", key, "POST", path, path, agent, b"", "opus")


@pytest.fixture
async def emptied(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[redis.asyncio.Redis]:
    # A busy test machine is not a Redis that is away.
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 5.0)
    quota.reset()
    await clients.for_requests().flushdb()
    yield clients.for_requests()
    await quota.settled()
    quota.reset()
    await clients.for_requests().flushdb()
    await clients.close()


async def test_a_hundred_at_once_get_exactly_what_may_be_in_flight(
    emptied: redis.asyncio.Redis, settings: Any
) -> None:
    one = member(max_in_flight=7)
    # Two connections, as two processes have them.
    other = redis.asyncio.Redis.from_url(settings.REDIS_URL, decode_responses=True)
    names = f"quota:{one.id}:in_flight", f"quota:{one.id}:minutes"

    async def elsewhere(number: int) -> float | None:
        given = ("admit", "", LEASE_SECONDS, f"other{number}", 7, "", "")
        told = await other.eval(ledger.SCRIPT, 2, *names, *given)
        return None if told[0] == "in" else 0.0

    here = [ledger.enter(one, f"this{number}") for number in range(50)]
    told = await asyncio.gather(*here, *(elsewhere(number) for number in range(50)))

    assert told.count(None) == 7
    assert set(told) == {None, 0.0}
    await other.aclose()


@pytest.mark.usefixtures("emptied")
async def test_who_leaves_makes_room() -> None:
    one = member(max_in_flight=1)

    assert await ledger.enter(one, "a") is None
    assert await ledger.enter(one, "b") == 0.0
    await ledger.leave(one.id, "a", 0)
    assert await ledger.enter(one, "b") is None


@pytest.mark.usefixtures("emptied")
async def test_what_a_killed_process_had_in_flight_is_free_within_a_minute() -> None:
    one = member(max_in_flight=2)
    await ledger.enter(one, "killed", NOW)
    await ledger.enter(one, "alive", NOW)

    await ledger.renew(one.id, ["alive"], NOW + quota.RENEW_SECONDS)

    assert await ledger.enter(one, "new", NOW + LEASE_SECONDS - 1) == 0.0
    assert await ledger.enter(one, "new", NOW + LEASE_SECONDS + 0.1) is None
    assert await ledger.enter(one, "newer", NOW + LEASE_SECONDS + 0.1) == 0.0
    assert LEASE_SECONDS < MINUTE


async def test_what_is_held_is_renewed_in_one_go_and_told_an_emptied_redis(
    emptied: redis.asyncio.Redis,
) -> None:
    quota._held.update({"a": 1, "b": 1, "c": 2})

    await quota.renew(NOW)

    assert await emptied.zrange("quota:1:in_flight", 0, -1, withscores=True) == [
        ("a", NOW + LEASE_SECONDS),
        ("b", NOW + LEASE_SECONDS),
    ]
    assert await emptied.zcard("quota:2:in_flight") == 1
    assert 0 < await emptied.ttl("quota:1:in_flight") <= LEASE_SECONDS


@pytest.mark.usefixtures("emptied")
async def test_requests_a_minute_are_counted_over_a_sliding_minute() -> None:
    one = member(requests_per_minute=10)

    first = [await ledger.enter(one, "x", NOW + 30) for _ in range(11)]
    assert first[:10] == [None] * 10
    wait = first[10]
    assert wait is not None
    # Ten in the minute before leave room for one when a tenth of this minute has passed.
    assert wait == pytest.approx(36, abs=0.2)
    assert await ledger.enter(one, "x", NOW + 30 + wait - 1) is not None
    assert await ledger.enter(one, "x", NOW + 30 + wait) is None
    assert await ledger.enter(one, "x", NOW + 30 + wait) is not None
    # Two minutes later nothing of it counts.
    later = [await ledger.enter(one, "x", NOW + 240) for _ in range(11)]
    assert later.count(None) == 10


@pytest.mark.usefixtures("emptied")
async def test_tokens_a_minute_are_counted_when_an_answer_ends() -> None:
    one = member(tokens_per_minute=1000)

    assert await ledger.enter(one, "a", NOW) is None
    await ledger.leave(one.id, "a", 400, NOW + 1)
    assert await ledger.enter(one, "b", NOW + 2) is None
    await ledger.leave(one.id, "b", 1600, NOW + 10)

    wait = await ledger.enter(one, "c", NOW + 20)

    assert wait is not None
    # Of 2000 tokens half must fade, that is half of the next minute.
    assert wait == pytest.approx(40 + 30, abs=0.2)
    assert await ledger.enter(one, "c", NOW + 20 + wait - 1) is not None
    assert await ledger.enter(one, "c", NOW + 20 + wait) is None


@pytest.mark.usefixtures("emptied")
async def test_a_clock_that_goes_back_loses_no_count() -> None:
    one = member(requests_per_minute=1)
    await ledger.enter(one, "x", NOW + 61)

    assert await ledger.enter(one, "x", NOW + 59) is not None


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


def test_no_limit_is_no_wait() -> None:
    assert Count(1e9, 1e9, 0).wait(None) == 0.0


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
    one, two, free = member(requests_per_minute=2), member(id=2, max_in_flight=1), member(id=3)

    told = [await ledger.enter(one, "x") for _ in range(3)]
    ramp.enter(2)
    full = await ledger.enter(two, "x")
    ramp.leave(2)
    empty = await ledger.enter(two, "x")
    await ledger.leave(3, "x", 5000)
    spent = await ledger.enter(replace(free, tokens_per_minute=100), "x")

    assert told[:2] == [None, None]
    assert told[2] is not None
    assert 0 < told[2] < 2 * MINUTE
    assert (full, empty) == (0.0, None)
    assert spent is not None
    assert spent > 0
    ledger.reset()
    await clients.close()
    settings.REDIS_URL = url


async def test_accounts_without_limits_cost_no_call(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = settings.REDIS_URL
    await clients.close()
    settings.REDIS_URL = "unix:///nowhere/s"

    with await quota.admit(member(), request(), Trail()) as place:  # type: ignore[union-attr]
        place.follow(None)

    assert not quota._leaving
    assert not caplog.records
    settings.REDIS_URL = url


async def test_a_further_try_of_what_nobody_has_seen_counts_once(
    emptied: redis.asyncio.Redis,
) -> None:
    one = member(requests_per_minute=1, max_in_flight=1)

    for is_counted in (False, True, True):
        place = await quota.admit(one, request(), Trail(), is_counted=is_counted)
        assert isinstance(place, quota.Place)
        with place:
            assert await emptied.zcard("quota:1:in_flight") == 1
        await quota.settled()
    assert isinstance(await quota.admit(one, request(), Trail()), quota.Refused)
    assert await emptied.hget("quota:1:minutes", "r") == "1"


def test_a_spent_minute_keeps_out_what_counts_until_its_limits_change() -> None:
    bench, now = Bench(), datetime.fromtimestamp(NOW, UTC)
    limited, later = member(requests_per_minute=1), now + timedelta(seconds=30)
    bench.pause(1, limited.pace, later)
    counting = replace(request(), endpoint="/v1/messages/count_tokens")

    def usable(one: Member, what: ClientRequest, at: datetime = now) -> bool:
        return bool(routing.candidates(Pool((one,)), bench, what, at).usable)

    assert not usable(limited, request())
    assert usable(limited, counting)
    assert usable(limited, request(), later)
    assert usable(replace(limited, requests_per_minute=2), request())
    assert usable(replace(limited, requests_per_minute=None), request())
    refusal = routing.nobody(Pool((limited,)), bench, request(), now)
    assert refusal.retry_after == 30
    bench.clear(1)
    assert usable(limited, request())


async def test_a_cancelled_request_takes_its_place_back(emptied: redis.asyncio.Redis) -> None:
    one = member(max_in_flight=1)
    entering = asyncio.create_task(_admitted(one))
    await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering

    await quota.settled()

    assert await emptied.zcard("quota:1:in_flight") == 0


async def _admitted(one: Member) -> quota.Place | quota.Refused:
    return await quota.admit(one, request(), Trail())


def test_an_account_that_is_full_here_comes_last_and_stays_usable() -> None:
    here = Ramp()
    pool = Pool((member(max_in_flight=1), member(id=2), member(id=3, max_in_flight=2)))
    now = datetime.fromtimestamp(NOW, UTC)
    for account in (1, 2, 3):
        here.enter(account)

    found = routing.candidates(pool, Bench(), request(), now, ramp=here)

    assert found.first == (2, 3)
    assert found.usable == (1, 2, 3)


def _body() -> bytes:
    return (
        b'{"model":"claude-opus-5-5","stream":true,"messages":[{"role":"user","content":"hello"}]}'
    )


async def test_parallel_streams_stay_under_the_cap_and_sessions_wait_a_moment(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "PATIENCE", 0.3)
    await relay.link("ada", "grace")
    await relay.set("ada", max_in_flight=2)
    await relay.set("grace", max_in_flight=1)
    relay.simulator.script({"path": "/v1/messages"}, times=4, events=30, pace=0.02)

    most: Counter[str] = Counter()

    async def watch() -> None:
        while True:
            for name, account in (await asyncio.to_thread(relay.simulator.accounts)).items():
                most[name] = max(most[name], account["in_flight"])
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(
        *(relay.ask(session=f"s{number}", stream=True) for number in range(8))
    )
    watching.cancel()

    codes = sorted(answer.status_code for answer in answers)
    assert codes[:3] == [200] * 3
    assert set(codes) <= {200, 429}
    for refused in (answer for answer in answers if answer.status_code == 429):
        assert refused.headers["x-relay-error"] == "pool_limited"
        assert refused.headers["retry-after"] == "1"
    assert sorted(most.values()) == [1, 2]
    await relay.running.idle()
    await quota.settled()
    assert quota._held == {}
    for account in relay.accounts.values():
        assert await clients.for_requests().zcard(f"quota:{account.pk}:in_flight") == 0


async def test_a_session_keeps_an_account_that_is_full_for_a_moment(relay: Relay) -> None:
    await relay.link("ada", "grace")
    assert (await relay.ask(session="s")).status_code == 200
    await relay.set("ada", max_in_flight=1)
    relay.simulator.clear_requests()
    relay.simulator.script({"account": "ada@example.com"}, events=10, pace=0.02)

    one, two = await asyncio.gather(
        relay.ask(session="s", stream=True), relay.ask(session="s", stream=True)
    )

    assert (one.status_code, two.status_code) == (200, 200)
    assert relay.served() == ["ada", "ada"]


async def test_a_stale_connection_is_counted_once(relay: Relay) -> None:
    await relay.link("ada")
    await relay.set("ada", max_in_flight=1, requests_per_minute=2)
    assert (await relay.ask()).status_code == 200
    relay.simulator.script({"account": "ada@example.com"}, reset="fin")

    # Its place is its own still, and nobody has seen the request: the minute has room for it.
    assert (await relay.ask()).status_code == 200
    assert relay.served() == ["ada", "ada", "ada"]


async def test_a_client_that_hangs_up_gives_its_place_back(relay: Relay) -> None:
    await relay.link("ada")
    await relay.set("ada", max_in_flight=1)
    relay.simulator.script(delay=5)
    headers = {"user-agent": "claude-cli/2"} | relay.auth

    client = await RawClient.post(relay.url, "/v1/messages", headers, _body())
    while not relay.served():
        await asyncio.sleep(0.01)
    client.hang_up()
    await relay.running.idle()

    assert (await relay.ask()).status_code == 200


async def test_a_spent_minute_moves_on_and_then_tells_when_to_come_back(relay: Relay) -> None:
    await relay.link("ada", "grace")
    await relay.set("ada", requests_per_minute=1)
    await relay.set("grace", tokens_per_minute=1)

    first = [await relay.ask(session="s"), await relay.ask(session="s")]
    await relay.running.idle()
    await quota.settled()
    refused = await relay.ask(session="s")

    assert [answer.status_code for answer in first] == [200, 200]
    assert relay.served() == ["ada", "grace"]
    assert refused.status_code == 429
    assert refused.headers["x-relay-error"] == "pool_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= math.ceil(2 * MINUTE)
    assert {(await relay.account(name)).status for name in ("ada", "grace")} == {"active"}


async def test_counting_tokens_is_nothing_of_a_minute(relay: Relay) -> None:
    await relay.link("ada")
    await relay.set("ada", requests_per_minute=1, tokens_per_minute=1)
    body = _body().replace(b'"stream":true,', b"")
    headers = relay.auth | {"content-type": "application/json", "user-agent": "claude-cli/2"}

    counted = [
        await relay.http.post("/v1/messages/count_tokens", content=body, headers=headers)
        for _ in range(3)
    ]

    assert [answer.status_code for answer in counted] == [200] * 3
