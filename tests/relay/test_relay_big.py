"""Big bodies pass whole, and a client that does not read costs neither memory nor an upstream."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import psutil
import pytest

from lib.redis import for_requests
from relay import asgi, deliver
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient
from usage import recorder

MIB = 1024 * 1024


async def test_a_body_of_almost_32_mib_arrives_unchanged(relay: Relay) -> None:
    await relay.link("ada")
    message = {"role": "user", "content": "x" * (32 * MIB - 200)}
    body = json.dumps({"model": "claude-opus-5-5", "messages": [message]}).encode()
    assert 31 * MIB < len(body) <= 32 * MIB

    answer = await relay.http.post(
        "/v1/messages", content=body, headers=CLAUDE_CODE | relay.auth, timeout=60
    )

    assert answer.status_code == 200
    (sent,) = relay.simulator.requests(path="/v1/messages")
    assert sent["body_sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.slow
async def test_d31_a_client_that_does_not_read_is_cut_and_costs_no_memory(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "CLIENT_SILENT", 4.0)
    monkeypatch.setattr(asgi, "WATCH_SECONDS", 0.5)
    await relay.link("ada")
    process = psutil.Process()
    relay.simulator.script(times=None, events=50_000, text="x" * (28 * MIB))
    messages = [{"role": "user", "content": "hello"}]
    ask = {"model": "claude-opus-5-5", "messages": messages, "stream": True}
    headers = CLAUDE_CODE | relay.auth
    await relay.ask()
    before = process.memory_info().rss

    clients = [
        await RawClient.post(relay.url, "/v1/messages", headers, json.dumps(ask).encode())
        for _ in range(3)
    ]
    for client in clients:
        client.writer.transport.pause_reading()
    high = before
    for _ in range(25):
        await asyncio.sleep(0.1)
        high = max(high, process.memory_info().rss)
    await relay.running.idle()

    assert high - before < 24 * MIB
    await recorder.appender.flushed()
    rows: list[Any] = await for_requests().xrange(recorder.STREAM)
    assert [json.loads(fields["d"])["ended"] for _, fields in rows][1:] == ["timeout"] * 3
    ended = [r["ended"] for r in relay.simulator.requests(path="/v1/messages")]
    assert ended[1:] == ["client_gone"] * 3
