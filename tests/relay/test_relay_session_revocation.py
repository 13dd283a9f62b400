"""A revoked session: what runs of it is cut at once, what comes of it is refused for a while."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

import pytest

from lib import bus, db
from lib.redis import for_jobs
from relay import asgi
from sessions_limit import bans, issuing, revoking, sessions, sightings, tasks
from sessions_limit.models import ClientKey, ClientSession, Revocation
from tests.lib.conftest import OwnValkey, own_valkey
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient
from usage import recorder
from usage.models import RequestRecord

__all__ = ["own_valkey"]

BODY = json.dumps(
    {
        "model": "claude-opus-5-5",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
    }
).encode()
WITHIN = 1.0


@pytest.fixture
async def pool(relay: Relay) -> Relay:
    """A relay with an account whose streams run for two seconds."""
    await relay.link("ada")
    relay.simulator.script(times=None, events=40, pace=0.05)
    return relay


async def _stream(relay: Relay, session: str) -> RawClient:
    """Begin a stream as a session and read its first piece."""
    headers = CLAUDE_CODE | relay.auth | {"x-claude-code-session-id": session}
    client = await RawClient.post(relay.url, "/v1/messages", headers, BODY)
    assert " 200 " in await client.head()
    await client.chunk()
    return client


async def _is_cut(client: RawClient) -> bool:
    """Read to the end; tell whether it was none."""
    try:
        while await client.chunk():
            pass
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return True
    return False


async def _cut_after(client: RawClient, revoked_at: float) -> float:
    assert await _is_cut(client)
    return time.monotonic() - revoked_at


async def _row(session: str) -> ClientSession:
    """Return a session as the record has it by now."""
    await sightings.appender.flushed()
    await db.in_thread(sightings.drain)
    return await db.in_thread(ClientSession.objects.get, session=session)


async def _revoke(session: str) -> float:
    await db.in_thread(revoking.revoke_session, await _row(session), by="test")
    return time.monotonic()


async def _ended(relay: Relay) -> dict[str, str]:
    """Return how the requests of each session ended."""
    await relay.running.idle()
    await recorder.appender.flushed()
    await db.in_thread(recorder.drain)
    return dict(
        await db.in_thread(lambda: [*RequestRecord.objects.values_list("session", "ended")])
    )


def _is_refused(answer: Any) -> bool:
    return (
        answer.status_code == 403
        and answer.headers["x-relay-error"] == "session_revoked"
        and answer.headers["x-should-retry"] == "false"
        and answer.json()["error"]["type"] == "permission_error"
    )


async def test_its_live_streams_are_cut_and_another_session_runs_on(pool: Relay) -> None:
    doomed, sibling = await _stream(pool, "a"), await _stream(pool, "a")
    other = await _stream(pool, "b")

    revoked_at = await _revoke("a")

    for client in (doomed, sibling):
        assert await _cut_after(client, revoked_at) < WITHIN
    assert not await _is_cut(other)
    assert await _ended(pool) == {"a": "session_revoked", "b": "complete"}
    upstream = sorted(r["ended"] for r in pool.simulator.requests(path="/v1/messages"))
    assert upstream == ["client_gone", "client_gone", "complete"]


async def test_what_still_waits_is_refused(relay: Relay) -> None:
    await relay.link("ada")
    relay.simulator.script(delay=5)
    asking = asyncio.create_task(relay.ask(session="a"))
    while not relay.served():
        await asyncio.sleep(0.01)

    revoked_at = await _revoke("a")

    assert _is_refused(await asking)
    assert time.monotonic() - revoked_at < WITHIN


async def test_a_wide_revocation_cuts_what_nobody_has_on_record_yet(pool: Relay) -> None:
    clients = [await _stream(pool, session) for session in "ab"]

    await db.in_thread(revoking.revoke_sessions_of_address, "127.0.0.1", by="test")
    revoked_at = time.monotonic()

    for client in clients:
        assert await _cut_after(client, revoked_at) < WITHIN
    # They go on being refused when they are known; new ones are welcome.
    assert _is_refused(await pool.ask(session="a"))
    await sightings.appender.flushed()
    await db.in_thread(tasks.drain_sightings)
    sessions.reset()
    assert _is_refused(await pool.ask(session="b"))
    assert (await pool.ask(session="c")).status_code == 200


async def test_it_is_cut_by_message_also_after_redis_was_restarted(
    own_valkey: OwnValkey, pool: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed, other = await _stream(pool, "a"), await _stream(pool, "b")
    row = await _row("a")
    own_valkey.kill()
    own_valkey.start()
    with contextlib.closing(own_valkey.client()) as client:
        while not dict(client.pubsub_numsub(bus.CHANNEL)).get(bus.CHANNEL):
            await asyncio.sleep(0.01)

    # As another process would: nobody here is told but by the message.
    monkeypatch.setattr(bus, "_publish", _publish_only)
    await db.in_thread(revoking.revoke_session, row, by="test")
    revoked_at = time.monotonic()

    assert await _cut_after(doomed, revoked_at) < WITHIN
    other.hang_up()


def _publish_only(topic: str) -> None:
    with contextlib.closing(for_jobs()) as client:
        client.publish(bus.CHANNEL, topic)


async def test_a_lost_message_only_delays_it(pool: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(bus, "changed", lambda topic: None)
    client = await _stream(pool, "a")

    await _revoke("a")

    assert await _is_cut(client)


async def test_it_is_refused_whatever_redis_and_the_process_have_forgotten(relay: Relay) -> None:
    await relay.link("ada")
    assert (await relay.ask(session="a")).status_code == 200
    await _revoke("a")

    assert _is_refused(await relay.ask(session="a"))
    with contextlib.closing(for_jobs()) as client:
        client.flushall()
    assert _is_refused(await relay.ask(session="a"))
    # Another process, or this one after a restart.
    sessions.reset()
    bans.snapshot.reset()
    assert _is_refused(await relay.ask(session="a"))
    assert (await relay.ask(session="b")).status_code == 200
    assert relay.served() == ["ada", "ada"]
    assert (await _row("a")).ended == "revoked"


async def test_when_its_time_is_over_it_is_welcome_again(relay: Relay, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"session_ban_seconds": 0.5})
    await relay.link("ada")
    await relay.ask(session="a")
    revoked_at = await _revoke("a")
    assert _is_refused(await relay.ask(session="a"))

    await asyncio.sleep(max(0.0, revoked_at + 0.55 - time.monotonic()))
    # It has been quiet for SESSION_IDLE_SECONDS.
    sessions.reset()

    assert (await relay.ask(session="a")).status_code == 200
    await sightings.appender.flushed()
    await db.in_thread(tasks.drain_sightings)
    assert await db.in_thread(_states) == ["", "revoked"]


def _states() -> list[str]:
    return sorted(ClientSession.objects.filter(session="a").values_list("ended", flat=True))


async def test_with_a_revoked_key_its_sessions_end(relay: Relay) -> None:
    await relay.link("ada")
    await relay.ask(session="a")
    await _row("a")
    key = await db.in_thread(ClientKey.objects.get)

    await db.in_thread(issuing.revoke, key, by="test")
    answer = await relay.ask(session="a")
    await db.in_thread(tasks.drain_sightings)

    assert (answer.status_code, answer.headers["x-should-retry"]) == (401, "false")
    assert (await _row("a")).ended == "revoked"
    assert not await db.in_thread(Revocation.objects.exists)
