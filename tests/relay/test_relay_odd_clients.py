"""Whatever a client sends, it gets an answer in the relay's own words and no line of alarm."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from proxy_project.door import Door
from relay import asgi, breaker, deliver
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient, RawUpstream

MODEL = b'{"model":"claude-opus-5-5","messages":[],'
BODIES = [
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"1e999",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{",
    b'{"model":null}',
    b'{"model":["x"]}',
    b'{"model":"\\ud800"}',
    b'{"model":"\x00"}',
    b'{"model":"a\\u0000b","messages":[]}',
    b'{"model":"\xff\xff","messages":[]}',
    b"[" * 200_000,
    b'{"model":"x","a":' + b"[" * 200_000,
    b'{"model":"x","metadata":' + b'{"a":' * 200_000,
    MODEL + b'"stream":"yes"}',
    MODEL + b'"stream":1,"metadata":7}',
    MODEL + b'"metadata":{"user_id":{"session_id":3}}}',
    MODEL + b'"metadata":{"user_id":"{\\"session_id\\":5}"}}',
    MODEL + b'"metadata":{"user_id":"{\\"session_id\\":\\"\\u0000\\"}"}}',
    MODEL + b'"metadata":{"user_id":"' + b"[" * 1000 + b'"}}',
    MODEL + b'"metadata":{"user_id":"user_' + b"a" * 64 + b'_account__session_-"}}',
    MODEL + b'"max_tokens":' + b"9" * 5000 + b"}",
    MODEL[:-1] + b"} trailing",
]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_no_body_is_a_500(relay: Relay, path: str, caplog: pytest.LogCaptureFixture) -> None:
    await relay.link("ada")

    for body in BODIES:
        answer = await relay.http.post(path, content=body, headers=CLAUDE_CODE | relay.auth)
        assert answer.status_code in (200, 400), (body[:80], answer.status_code)
    await relay.running.idle()

    assert not [record for record in caplog.records if record.levelname == "ERROR"]


HEADS = [
    ("GET", "/v1/models?limit=%zz&a=[&b=@:80//#", {}),
    ("GET", "/v1/models?a=%00%ff;&&==", {}),
    ("GET", "/v1/models/%ff%00", {}),
    ("GET", "/v1/models/a:b@c", {}),
    ("GET", "/v1/%6dodels", {}),
    ("GET", "/v1/", {}),
    ("GET", "/v1//messages", {}),
    ("HEAD", "/v1/models", {}),
    ("OPTIONS", "/v1/messages", {}),
    ("PUT", "/v1/messages", {}),
    ("GET", "/v1/models", {"x-claude-code-session-id": "\xff\xfe"}),
    ("GET", "/v1/models", {"anthropic-beta": "\xff, ,,\t"}),
    ("GET", "/v1/models", {"anthropic-version": ""}),
    ("GET", "/v1/models", {"user-agent": "\xe9\xff"}),
    ("GET", "/v1/models", {"x-api-key": "rk_\xff"}),
    ("GET", "/v1/models", {"authorization": "Bearer"}),
    ("GET", "/v1/models", {"authorization": ""}),
    ("GET", "/v1/models", {"authorization": "Bearer rk_" + "x" * 20_000}),
    ("GET", "/v1/models", {"content-encoding": "gzip"}),
    ("GET", "/v1/models", {"expect": "100-continue"}),
    ("GET", "/v1/models", {"accept": "\xff"}),
]


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_no_head_is_a_500(
    relay: Relay, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await relay.link("ada")

    for method, path, fields in HEADS:
        client = await RawClient.request(
            relay.url, method, path, CLAUDE_CODE | relay.auth | fields, body
        )
        head = await asyncio.wait_for(client.head(), 5)
        if "100 Continue" in head:
            head = await asyncio.wait_for(client.head(), 5)
        assert int(head.split()[1]) in (200, 400, 401, 404, 405, 415), (method, path, fields, head)
        client.hang_up()
    await relay.running.idle()

    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("guard", [(deliver, "CLIENT_SILENT"), (Door, "unread_seconds")])
async def test_a_client_that_reads_none_of_many_answers_is_given_up(
    relay: Relay, settings: Any, monkeypatch: pytest.MonkeyPatch, guard: tuple[Any, str]
) -> None:
    monkeypatch.setattr(*guard, 0.3)
    monkeypatch.setattr(asgi, "WATCH_SECONDS", 0.1)
    (ada,) = await relay.link("ada")
    text = b'{"text":"' + b"x" * 900_000 + b'"}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    async with RawUpstream([head % len(text) + text]) as upstream:
        settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_base_url": upstream.url})
        body = json.dumps({"model": "claude-opus-5-5", "messages": []}).encode()
        client = await RawClient.post(relay.url, "/v1/messages", relay.auth, body)
        fields = "".join(f"{name}: {value}\r\n" for name, value in relay.auth.items())
        again = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{fields}"
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(12):
            client.writer.write(again.encode() + b"\r\n" + body)

        await asyncio.sleep(1)
        await asyncio.wait_for(relay.running.idle(), 10)

    assert len(upstream.requests) < 13
    assert not breaker.accounts._record(ada.pk).failures
    client.hang_up()


async def test_answers_to_pipelined_requests_come_in_their_order(relay: Relay) -> None:
    await relay.link("ada")
    relay.simulator.script(delay=0.3)
    messages = [{"role": "user", "content": "hello"}]
    asked = {"model": "claude-opus-5-5", "messages": messages, "stream": True}
    body = json.dumps(asked).encode()
    client = await RawClient.post(relay.url, "/v1/messages", CLAUDE_CODE | relay.auth, body)
    client.writer.write(b"HEAD /api/hello HTTP/1.1\r\nhost: x\r\n\r\n")

    seen = await asyncio.wait_for(client.all(), 5)
    probe = await asyncio.wait_for(client.head(), 5)

    assert seen.ended_well
    assert b"message_stop" in seen.body
    assert " 200 " in probe


async def test_a_flood_of_pipelined_requests_ends_the_connection_at_once(relay: Relay) -> None:
    again = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    client = await RawClient.post(relay.url, "/v1/messages", {}, b"{}")
    client.writer.write(again * 40_000)

    async with asyncio.timeout(5):
        with contextlib.suppress(OSError):
            while await client.reader.read(65536):
                pass

    assert (await relay.http.head("/api/hello")).status_code == 200
