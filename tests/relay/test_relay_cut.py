"""An account that is disabled lets its streams end; one that is cut ends them at once, visibly."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from accounts import facts, lifecycle
from lib.redis import for_requests
from relay import asgi, live
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


async def _stream(relay: Relay, session: str) -> RawClient:
    headers = CLAUDE_CODE | relay.auth | {"x-claude-code-session-id": session}
    return await RawClient.post(relay.url, "/v1/messages", headers, BODY)


async def _read_on(client: RawClient) -> None:
    while await client.chunk():
        pass


async def _ended(relay: Relay) -> list[str]:
    await relay.running.idle()
    await recorder.appender.flushed()
    rows: list[Any] = await for_requests().xrange(recorder.STREAM)
    return sorted(json.loads(fields["d"])["ended"] for _, fields in rows)


async def test_s08_only_a_cut_ends_the_live_streams_of_a_disabled_account(relay: Relay) -> None:
    ada, grace = await relay.link("ada", "grace")
    relay.simulator.script(times=None, events=400, pace=0.05)
    streams = []
    for session in ("one", "two"):
        streams.append(await _stream(relay, session))
        # The second begins when the first is served, so that it is known who serves which.
        await streams[-1].head()
        await streams[-1].chunk()
    served = [relay.accounts[name] for name in relay.served()]
    assert {account.pk for account in served} == {ada.pk, grace.pk}

    await sync_to_async(lifecycle.disable)(served[1], by="test")
    await sync_to_async(lifecycle.disable)(served[0], by="test", cut=True)
    cut_at = time.monotonic()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await _read_on(streams[0])

    assert time.monotonic() - cut_at < 1
    for _ in range(10):
        assert await streams[1].chunk()
    streams[1].hang_up()
    assert await _ended(relay) == ["client_gone", "disabled"]


async def test_a_request_that_waits_for_a_cut_account_may_come_again_at_once(relay: Relay) -> None:
    (ada,) = await relay.link("ada")
    relay.simulator.script(delay=5)
    client = await _stream(relay, "one")
    while not relay.served():
        await asyncio.sleep(0.01)

    await sync_to_async(lifecycle.disable)(ada, by="test")
    await sync_to_async(lifecycle.disable)(ada, by="test", cut=True)
    head = await client.head()

    assert " 503 " in head
    assert "retry-after: 1" in head
    assert await _ended(relay) == ["disabled"]


async def test_s07_a_long_answer_counts_as_use(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "USE_SECONDS", 0.1)
    monkeypatch.setattr(asgi, "WATCH_SECONDS", 0.05)
    (ada,) = await relay.link("ada")
    relay.simulator.script(times=None, events=12, pace=0.05)
    client = await _stream(relay, "one")

    await client.head()
    await facts.facts.flushed()
    await sync_to_async(facts.drain)()
    begun = (await relay.account("ada")).last_used_at
    await _read_on(client)
    await facts.facts.flushed()
    await sync_to_async(facts.drain)()

    used = (await relay.account("ada")).last_used_at
    assert begun is not None
    assert used is not None
    assert (used - begun).total_seconds() > 0.2
