"""An upstream that breaks the rules of HTTP or of its own API is never passed off as a good one."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from typing import Any

import pytest

from lib.redis import for_requests
from relay import answer as answer_
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient, RawUpstream
from usage import recorder

START = b'event: message_start\ndata: {"type":"message_start","message":{"usage":{}}}\n\n'
USED = b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":4}}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def _stream(*chunks: bytes) -> bytes:
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return head + b"".join(map(_chunk, chunks))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(status: bytes, body: bytes, *fields: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *fields]
    return b"\r\n".join([*lines, b"", b""]) + body


JSON = b"content-type: application/json"
MESSAGE = b'{"type":"message","content":[],"usage":{"input_tokens":3,"output_tokens":4}}'


def _error(type_: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": type_, "message": message}}).encode()


def use(settings: Any, upstream: RawUpstream) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_base_url": upstream.url})


async def _open(relay: Relay) -> RawClient:
    body = {"model": "claude-opus-5-5", "messages": [], "stream": True}
    return await RawClient.post(
        relay.url, "/v1/messages", CLAUDE_CODE | relay.auth, json.dumps(body).encode()
    )


async def _ended() -> list[str]:
    """Return how the requests ended, once there is a record."""
    return [record["ended"] for record in await _records()]


async def _records() -> list[dict[str, Any]]:
    rows: list[Any] = []
    for _ in range(100):
        rows = await for_requests().xrange(recorder.STREAM)
        if rows:
            break
        await asyncio.sleep(0.01)
    return [json.loads(fields["d"]) for _, fields in rows]


async def test_bad_framing_within_a_stream_counts_as_a_cut(
    relay: Relay, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await relay.link("ada")

    async with RawUpstream([_stream(START), 0.1, b"zzz\r\nnonsense\r\n"]) as upstream:
        use(settings, upstream)

        seen = await asyncio.wait_for((await _open(relay)).all(), 5)

    assert not seen.ended_well
    assert seen.body == START
    assert await _ended() == ["upstream_cut"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_bad_framing_before_the_first_event_is_answered_502(
    relay: Relay, settings: Any
) -> None:
    await relay.link("ada")

    async with RawUpstream([_stream() + b"zzz\r\nnonsense\r\n"]) as upstream:
        use(settings, upstream)
        answer = await relay.ask(stream=True)

    assert answer.status_code == 502
    assert answer.headers["x-relay-error"] == "upstream_protocol"


async def test_a_reset_behind_the_last_event_is_no_cut(relay: Relay, settings: Any) -> None:
    await relay.link("ada")

    async with RawUpstream([_stream(START, STOP), 0.1, None]) as upstream:
        use(settings, upstream)
        seen = await asyncio.wait_for((await _open(relay)).all(), 5)

    assert seen.ended_well
    assert seen.body == START + STOP
    assert await _ended() == ["complete"]


async def test_a_client_that_leaves_behind_the_last_event_has_all_that_was_used(
    relay: Relay, settings: Any
) -> None:
    await relay.link("ada")

    async with RawUpstream([_stream(START), 0.1, _chunk(USED), 0.1, _chunk(STOP), 3.0]) as upstream:
        use(settings, upstream)
        client = await _open(relay)
        await client.head()
        assert [await client.chunk() for _ in range(3)] == [START, USED, STOP]
        client.hang_up()
        [record] = await _records()

    assert (record["ended"], record["output_tokens"]) == ("client_gone", 4)
    assert not record["is_partial"]


async def test_a_refusal_whose_body_never_comes_fails_over(
    relay: Relay, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_, "REFUSAL_SECONDS", 0.5)
    await relay.link("ada", "grace")

    head = (
        b"HTTP/1.1 429 Too Many\r\ncontent-length: 100\r\nretry-after: 60\r\n" + JSON + b"\r\n\r\n{"
    )
    async with RawUpstream([head, 60.0], [_whole(b"200 OK", MESSAGE, JSON)]) as upstream:
        use(settings, upstream)
        answer = await asyncio.wait_for(relay.ask(), 15)

    assert answer.status_code == 200


async def test_events_without_a_name_are_events(relay: Relay, settings: Any) -> None:
    await relay.link("ada")

    nameless = b'data: {"type":"message_start","message":{}}\n\n'
    stop = b'data: {"type":"message_stop"}\n\n'
    async with RawUpstream([_stream(nameless), 3.0, _chunk(stop) + b"0\r\n\r\n"]) as upstream:
        use(settings, upstream)
        client = await _open(relay)
        await asyncio.wait_for(client.head(), 1)
        assert await asyncio.wait_for(client.chunk(), 1) == nameless


async def test_a_compressed_refusal_is_understood(relay: Relay, settings: Any) -> None:
    await relay.link("ada", "grace")

    body = gzip.compress(_error("invalid_request_error", "This organization has been disabled."))
    zipped = b"content-encoding: gzip"
    async with RawUpstream(
        [_whole(b"400 Bad Request", body, JSON, zipped)], [_whole(b"200 OK", MESSAGE, JSON)]
    ) as upstream:
        use(settings, upstream)
        answer = await relay.ask()

    assert answer.status_code == 200
    assert (await relay.account("ada")).status == "invalid"


LONG = json.dumps({"content": random.Random(1).randbytes(1_200_000).hex(), **json.loads(MESSAGE)})


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (MESSAGE, JSON),
        (LONG.encode(), JSON),
        (START + USED + STOP, b"content-type: text/event-stream"),
    ],
)
async def test_what_a_compressed_answer_used_is_recorded(
    relay: Relay, settings: Any, body: bytes, kind: bytes
) -> None:
    await relay.link("ada")

    zipped = _whole(b"200 OK", gzip.compress(body, 1), kind, b"content-encoding: gzip")
    async with RawUpstream([zipped]) as upstream:
        use(settings, upstream)
        answer = await relay.ask(stream=kind is not JSON)

    assert answer.content == body
    [record] = await _records()
    assert (record["ended"], record["output_tokens"]) == ("complete", 4)


async def test_a_stream_in_the_identity_encoding_is_a_stream(relay: Relay, settings: Any) -> None:
    await relay.link("ada")

    first = _stream(START).replace(b"\r\n\r\n", b"\r\ncontent-encoding: identity\r\n\r\n", 1)
    async with RawUpstream([first, 3.0]) as upstream:
        use(settings, upstream)
        client = await _open(relay)
        await asyncio.wait_for(client.head(), 1)


async def test_a_refusal_before_the_body_was_sent_is_passed_on(relay: Relay, settings: Any) -> None:
    await relay.link("ada")

    refusal = _whole(b"413 Too Large", _error("request_too_large", "x"), JSON)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await asyncio.sleep(0.3)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**16)
    settings.CONFIG = settings.CONFIG.model_copy(
        update={"upstream_base_url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
    )

    answer = await relay.ask("x" * 20_000_000)
    server.close()

    assert answer.status_code == 413


@pytest.mark.parametrize("status", [204, 201])
async def test_an_answer_without_a_body_is_passed_on(
    relay: Relay, settings: Any, status: int
) -> None:
    await relay.link("ada")

    async with RawUpstream([b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status]) as upstream:
        use(settings, upstream)
        answer = await relay.ask()

    assert answer.status_code == status


async def test_an_interim_answer_is_skipped(relay: Relay, settings: Any) -> None:
    await relay.link("ada")

    async with RawUpstream(
        [b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + _whole(b"200 OK", MESSAGE, JSON)]
    ) as upstream:
        use(settings, upstream)
        answer = await relay.ask()

    assert answer.status_code == 200


async def test_trailers_are_dropped(relay: Relay, settings: Any) -> None:
    await relay.link("ada")

    async with RawUpstream([_stream(START, STOP) + b"0\r\nx-secret: v\r\n\r\n"]) as upstream:
        use(settings, upstream)
        seen = await asyncio.wait_for((await _open(relay)).all(), 5)

    assert seen.ended_well
    assert seen.body == START + STOP
