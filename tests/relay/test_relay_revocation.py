"""A revoked key ends what runs with it, at once and visibly."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from lib import bus
from lib.redis import for_requests
from relay import asgi
from relay.trail import Ended, Trail
from sessions_limit import keys
from sessions_limit.models import ClientKey
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient
from usage import recorder

BODY = json.dumps(
    {
        "model": "claude-opus-5-5",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
    }
).encode()


async def _stream(relay: Relay, key: str) -> RawClient:
    headers = CLAUDE_CODE | {"x-api-key": key, "anthropic-version": "2023-06-01"}
    return await RawClient.post(relay.url, "/v1/messages", headers, BODY)


async def _read_on(client: RawClient) -> None:
    while await client.chunk():
        pass


async def _ended(relay: Relay) -> list[str]:
    await relay.running.idle()
    await recorder.appender.flushed()
    rows: list[Any] = await for_requests().xrange(recorder.STREAM)
    return [json.loads(fields["d"])["ended"] for _, fields in rows]


async def _revoke(row: ClientKey) -> float:
    await sync_to_async(keys.revoke)(row, by="test")
    return time.monotonic()


async def test_its_live_streams_are_cut_and_others_go_on(relay: Relay) -> None:
    await relay.link("ada")
    row, key = await sync_to_async(keys.create)(name="short", by="test")
    relay.simulator.script(times=None, events=60, pace=0.05)
    doomed, other = await _stream(relay, key), await _stream(relay, relay.key)
    for client in (doomed, other):
        await client.head()
        await client.chunk()

    revoked_at = await _revoke(row)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await _read_on(doomed)

    assert time.monotonic() - revoked_at < 1
    await _read_on(other)
    assert sorted(await _ended(relay)) == ["complete", "revoked"]
    upstream = {request["ended"] for request in relay.simulator.requests(path="/v1/messages")}
    assert upstream == {"client_gone", "complete"}


async def test_d36_a_request_that_still_waits_is_refused(relay: Relay) -> None:
    await relay.link("ada")
    row, key = await sync_to_async(keys.create)(name="short", by="test")
    relay.simulator.script(delay=5)
    client = await _stream(relay, key)
    while not relay.served():
        await asyncio.sleep(0.01)

    await _revoke(row)
    head = await client.head()

    assert " 401 " in head
    assert "x-relay-error: client_auth" in head
    assert await _ended(relay) == ["revoked"]


async def test_a_lost_hint_only_delays_it(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(bus, "changed", lambda topic: None)
    await relay.link("ada")
    row, key = await sync_to_async(keys.create)(name="short", by="test")
    relay.simulator.script(times=None, events=400, pace=0.05)
    client = await _stream(relay, key)
    await client.head()

    await _revoke(row)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await _read_on(client)

    assert await _ended(relay) == ["revoked"]


async def test_nothing_is_remembered_of_what_has_ended(relay: Relay) -> None:
    from relay import live

    await relay.link("ada")
    await asyncio.gather(*(relay.ask() for _ in range(5)))
    await relay.running.idle()

    assert not live._running


async def test_what_begins_while_the_keys_are_looked_at_is_left_alone(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relay import live

    def load_slowly() -> Any:
        time.sleep(0.3)
        return keys.load()

    first, _ = await sync_to_async(keys.create)(name="first", by="test")
    second, _ = await sync_to_async(keys.create)(name="second", by="test")
    monkeypatch.setattr(keys.snapshot, "_load", load_slowly)
    keys.snapshot.invalidate()

    with live.watched(first.pk, Trail()) as ended:
        live.check()
        await asyncio.sleep(0.1)
        with live.watched(second.pk, Trail()) as revoked:
            await asyncio.gather(*live._checks)

            assert not revoked.done()
            assert not ended.done()


async def test_a_change_during_a_look_is_looked_at_too(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relay import live

    asked = asyncio.Event()

    async def still_open(ids: Any) -> set[int]:
        if asked.is_set():
            return set()
        asked.set()
        await asyncio.sleep(0.05)
        return set(ids)

    monkeypatch.setattr(keys, "still_open", still_open)
    with live.watched(1, Trail()) as revoked:
        live.check()
        await asked.wait()
        live.check()
        await asyncio.gather(*live._checks)

        assert revoked.result() is Ended.REVOKED
