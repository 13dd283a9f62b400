"""Configured limits of an account, of what it has in flight and in a minute."""

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

from accounts.pool import Member, Pool
from accounts.states import Kind, Status
from lib import redis as clients
from lib.ledger import LEASE_SECONDS
from lib.minutes import MINUTE
from relay import quota, routing
from relay.bench import Bench
from relay.ramp import Ramp
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


async def test_what_is_held_is_renewed_in_one_go_and_told_an_emptied_redis(
    emptied: redis.asyncio.Redis,
) -> None:
    quota._held.update({"a": 1, "b": 1, "c": 2})

    await quota.renew(NOW)

    assert await emptied.zrange("quota:account:1:in_flight", 0, -1, withscores=True) == [
        ("a", NOW + LEASE_SECONDS),
        ("b", NOW + LEASE_SECONDS),
    ]
    assert await emptied.zcard("quota:account:2:in_flight") == 1
    assert 0 < await emptied.ttl("quota:account:1:in_flight") <= LEASE_SECONDS


async def test_without_redis_the_process_keeps_an_account_that_is_full_here(settings: Any) -> None:
    url = settings.REDIS_URL
    await clients.close()
    settings.REDIS_URL = "unix:///nowhere/s"
    one = member(max_in_flight=1)

    with await quota.enter(one, request(), Trail()) as place:  # type: ignore[union-attr]
        full = await quota.enter(one, request(), Trail())
        place.follow(None)
    with await quota.enter(one, request(), Trail()) as place:  # type: ignore[union-attr]
        place.follow(None)
    await quota.settled()

    assert full == quota.Refused(0.0)
    await clients.close()
    settings.REDIS_URL = url
    quota.reset()


async def test_accounts_without_limits_cost_no_call(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = settings.REDIS_URL
    await clients.close()
    settings.REDIS_URL = "unix:///nowhere/s"

    with await quota.enter(member(), request(), Trail()) as place:  # type: ignore[union-attr]
        place.follow(None)

    assert not quota._leaving
    assert not caplog.records
    settings.REDIS_URL = url


async def test_a_further_try_of_what_nobody_has_seen_counts_once(
    emptied: redis.asyncio.Redis,
) -> None:
    one = member(requests_per_minute=1, max_in_flight=1)

    for is_counted in (False, True, True):
        place = await quota.enter(one, request(), Trail(), is_counted=is_counted)
        assert isinstance(place, quota.Place)
        with place:
            assert await emptied.zcard("quota:account:1:in_flight") == 1
        await quota.settled()
    assert isinstance(await quota.enter(one, request(), Trail()), quota.Refused)
    assert await emptied.hget("quota:account:1:minutes", "r") == "1"


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

    assert await emptied.zcard("quota:account:1:in_flight") == 0


async def _admitted(one: Member) -> quota.Place | quota.Refused:
    return await quota.enter(one, request(), Trail())


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


async def test_parallel_streams_stay_under_the_cap_and_the_others_wait(relay: Relay) -> None:
    await relay.link("ada", "grace")
    await relay.set("ada", max_in_flight=2)
    await relay.set("grace", max_in_flight=1)
    relay.simulator.script({"path": "/v1/messages"}, times=None, events=15, pace=0.02)

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

    assert [answer.status_code for answer in answers] == [200] * 8
    assert sorted(most.values()) == [1, 2]
    await relay.running.idle()
    await quota.settled()
    assert quota._held == {}
    for account in relay.accounts.values():
        assert await clients.for_requests().zcard(f"quota:account:{account.pk}:in_flight") == 0


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
