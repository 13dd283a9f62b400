"""Clients while Redis is away: who is let in, who is refused, what runs on, and when it is over."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.utils import timezone

from accounts import pool
from events.models import Event
from lib import batch as batches
from lib import counters
from lib.snapshot import DEAD, FRESH, STALE, Snapshot
from relay import asgi
from sessions_limit import alone, bans, keys, limiter, presence, sessions, sightings
from sessions_limit.models import ClientKey, ClientSession, Revocation
from tests.faults.conftest import OwnValkey
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient
from tests.support import databases

pytestmark = pytest.mark.usefixtures("own_valkey")

DEGRADED, RESTORED = alone.DEGRADED, alone.RESTORED


@pytest.fixture
async def limited(
    own_valkey: OwnValkey, relay: Relay, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    """A pool of one, three sessions for each key, and a heart that beats fast."""
    await relay.link("ada")
    for name, value in {"PERIOD": 0.6, "LOOK": 0.1}.items():
        monkeypatch.setattr(presence, name, value)
    monkeypatch.setattr(alone, "CALM", 0.3)
    monkeypatch.setattr(batches, "PAUSE", 0.2)

    def set_to(**given: Any) -> None:
        settings.CONFIG = settings.CONFIG.model_copy(update={"session_limit": True} | given)

    set_to(session_max_concurrent=3)
    yield set_to
    # Rows wait for Redis; without it the end of the relay would wait for ever.
    own_valkey.kill()
    own_valkey.start()


async def statuses(relay: Relay, *names: str) -> list[int]:
    return [(await relay.ask(session=name)).status_code for name in names]


async def becomes_alone(is_alone: bool, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while alone.state.is_alone is not is_alone:
            await asyncio.sleep(0.01)


async def told(kind: str, within: float = 5.0) -> int:
    """Wait until the journal has an event of this kind; return how many."""
    async with asyncio.timeout(within):
        while not await Event.objects.filter(kind=kind).aexists():
            await asyncio.sleep(0.02)
    return await Event.objects.filter(kind=kind).acount()


def shares_with_another(own_valkey: OwnValkey) -> None:
    """Let there be a second web process; it lives for as long as the test."""
    with own_valkey.client() as client:
        client.sadd(presence.PROCESSES, "other")
        client.hset(f"{presence.PROCESSES}:other", presence.ALIVE, "")


async def test_a_process_admits_its_share_until_redis_is_back(
    own_valkey: OwnValkey, relay: Relay, limited: Any
) -> None:
    shares_with_another(own_valkey)
    assert await statuses(relay, "a") == [200]
    await presence.exchange()
    own_valkey.kill()

    assert await statuses(relay, *"aba") == [200, 200, 200]
    refused = await relay.ask(session="c")

    assert (refused.status_code, refused.headers["x-relay-error"]) == (429, "session_limit")
    assert refused.headers["x-should-retry"] == "false"
    assert 290 < int(refused.headers["retry-after"]) <= 300
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert counters.level(alone.LEVEL).value == 1
    assert await told(DEGRADED) == 1
    assert await statuses(relay, *"abc") == [200, 200, 429]

    own_valkey.start()
    await becomes_alone(False)
    assert counters.level(alone.LEVEL).value == 0
    # Both that are open count again, the one that was admitted alone too.
    await counts(own_valkey, 2)
    assert await statuses(relay, *"abcd") == [200, 200, 200, 429]
    assert (await told(RESTORED), await told(DEGRADED)) == (1, 1)


async def counts(own_valkey: OwnValkey, sessions: int, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while await sync_to_async(_count)(own_valkey) < sessions:
            await asyncio.sleep(0.02)


def _count(own_valkey: OwnValkey) -> int:
    with own_valkey.client() as client:
        return int(client.zcard(limiter.ALL))


async def test_closed_new_sessions_wait_for_redis_and_open_all_go_on(
    own_valkey: OwnValkey, relay: Relay, limited: Any
) -> None:
    limited(session_fail_mode="closed")
    assert await statuses(relay, "a") == [200]
    own_valkey.kill()

    refused = await relay.ask(session="b")
    known = await statuses(relay, "a")
    limited(session_fail_mode="open")
    opened = await statuses(relay, *"abcdef")

    assert (refused.status_code, refused.headers["x-relay-error"]) == (503, "limiter_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert "x-should-retry" not in refused.headers
    assert known + opened == [200] * 7
    assert relay.served() == list(("ada",) * 8)


async def test_a_stream_outlives_redis_and_its_idle_time_and_then_counts_again(
    own_valkey: OwnValkey, relay: Relay, limited: Any
) -> None:
    limited(session_idle_seconds=1, session_max_concurrent=1)
    relay.simulator.script({"path": "/v1/messages"}, events=30, pace=0.1)
    stream = await _stream(relay, relay.key, "long")
    await stream.head()
    (before,) = sessions.leases.values()
    uid = before.uid
    own_valkey.kill_and_forget()
    reading = asyncio.create_task(_rest(stream))

    await asyncio.sleep(1.4)
    assert await statuses(relay, "short") == [429]
    own_valkey.start()
    await becomes_alone(False)
    await counts(own_valkey, 1)

    assert await statuses(relay, "short") == [429]
    assert not reading.done()
    assert (await reading).rstrip().endswith(b'data: {"type":"message_stop"}')
    stream.hang_up()
    await relay.running.idle()
    await sightings.appender.flushed()
    await sync_to_async(sightings.drain)()
    (row,) = [row async for row in ClientSession.objects.all()]
    assert (row.uid, row.session, row.requests) == (uid, "long", 1)


async def _stream(relay: Relay, key: str, session: str) -> RawClient:
    body = {
        "model": "claude-opus-5-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "tell"}],
        "stream": True,
    }
    headers = CLAUDE_CODE | {"x-api-key": key, "x-claude-code-session-id": session}
    return await RawClient.post(relay.url, "/v1/messages", headers, json.dumps(body).encode())


async def _rest(stream: RawClient) -> bytes:
    """Read what follows the head; b"" for a stream that was cut."""
    body = b""
    try:
        while piece := await stream.chunk():
            body += piece
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return b""
    return body


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let so much time have passed for all that is kept of the database."""
    kept: tuple[Snapshot[Any], ...] = (keys.snapshot, bans.snapshot, pool.snapshot)
    for snapshot in kept:
        monkeypatch.setattr(snapshot, "_clock", lambda: time.monotonic() + seconds)


async def test_bans_hold_in_a_redis_that_comes_back_empty_before_anybody_is_let_in(
    own_valkey: OwnValkey, relay: Relay, limited: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await statuses(relay, "bad") == [200]
    key = await ClientKey.objects.aget()
    await _revoke(f"key:{key.pk}/bad", f"key:{key.pk}/worse")
    # As in a process that knows of neither: it has just been started.
    sessions.reset()
    bans.snapshot.reset()
    own_valkey.kill_and_forget()
    own_valkey.start()

    answers = await asyncio.gather(*(relay.ask(session=name) for name in ("bad", "worse") * 5))

    assert {answer.status_code for answer in answers} == {403}
    assert {answer.headers["x-relay-error"] for answer in answers} == {"session_revoked"}
    assert await sync_to_async(_count)(own_valkey) == 0


async def _revoke(*names: str) -> None:
    """Revoke sessions as another machine does whose message is lost: the row is all there is."""
    until = timezone.now() + timedelta(minutes=15)
    for name in names:
        await Revocation.objects.acreate(name=name, until=until, by="test", target="session")


async def test_what_is_revoked_in_the_database_ends_without_any_message(
    own_valkey: OwnValkey, relay: Relay, limited: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What it must be for a revocation to be seen within ten seconds, however it falls.
    assert asgi.WATCH_SECONDS + FRESH < 9.5
    monkeypatch.setattr(asgi, "WATCH_SECONDS", 0.2)
    row, key = await sync_to_async(keys.create)(name="short", by="test")
    relay.simulator.script({"path": "/v1/messages"}, times=3, events=25, pace=0.1)
    asked = [(key, "a"), (relay.key, "bad"), (relay.key, "good")]
    streams = [await _stream(relay, *whose) for whose in asked]
    for stream in streams:
        await stream.head()
    own_valkey.kill()

    first = await ClientKey.objects.exclude(pk=row.pk).aget()
    await ClientKey.objects.filter(pk=row.pk).aupdate(revoked_at=timezone.now())
    await _revoke(f"key:{first.pk}/bad")
    by_key, by_session, good = await asyncio.gather(*(_rest(stream) for stream in streams))
    later(monkeypatch, STALE)
    answers = [
        await relay.ask(session="a", headers={"authorization": f"Bearer {key}"}),
        await relay.ask(session="bad"),
        await relay.ask(session="good"),
    ]

    assert (by_key, by_session, bool(good)) == (b"", b"", True)
    assert [answer.status_code for answer in answers] == [401, 403, 200]


async def test_without_a_database_known_keys_are_good_for_a_minute(
    own_valkey: OwnValkey, relay: Relay, limited: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await statuses(relay, "a") == [200]
    unknown = {"authorization": f"Bearer rk_{'x' * 43}"}
    own_valkey.kill()

    async with gone():
        later(monkeypatch, DEAD - 10)
        # Known and new sessions both; of a key that nobody knows nothing can be said.
        answers = [
            await relay.ask(session="a"),
            await relay.ask(session="b"),
            await relay.ask(session="a", headers=unknown),
        ]
        later(monkeypatch, DEAD + 1)
        late = await relay.ask(session="a")

    assert [answer.status_code for answer in answers] == [200, 200, 503]
    _is_passing(answers[-1])
    _is_passing(late)
    own_valkey.start()
    await sync_to_async(connections.close_all)()
    async with asyncio.timeout(5):
        while await statuses(relay, "a") != [200]:
            await asyncio.sleep(0.05)


class gone:
    """A database that is away; it is taken and given back off the event loop."""

    def __init__(self) -> None:
        self._fault = databases.gone()

    async def __aenter__(self) -> None:
        await sync_to_async(self._fault.__enter__, thread_sensitive=False)()

    async def __aexit__(self, *_: object) -> None:
        await sync_to_async(self._fault.__exit__, thread_sensitive=False)(None, None, None)


def _is_passing(answer: httpx2.Response) -> None:
    assert (answer.status_code, answer.headers["x-relay-error"]) == (503, "pool_unavailable")
    assert int(answer.headers["retry-after"]) > 0


async def test_a_redis_that_hangs_holds_up_new_sessions_only(
    own_valkey: OwnValkey, relay: Relay, limited: Any
) -> None:
    limited(session_max_concurrent=-1)
    await statuses(relay, *"ab")
    usual = await _slowest(relay, *"abab")
    own_valkey.freeze()

    new = await _slowest(relay, *"cdef")
    known = await _slowest(relay, *"abab" * 3)
    own_valkey.thaw()

    # A new session asks for its slot, then for its account: two waits at most.
    assert new < usual + 2 * 0.25 + 1
    assert known < usual + 0.4


async def _slowest(relay: Relay, *names: str) -> float:
    took = []
    for name in names:
        began = time.monotonic()
        assert await statuses(relay, name) == [200]
        took.append(time.monotonic() - began)
    return max(took)
