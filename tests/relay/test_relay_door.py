"""Hostile bytes at the door: refused in the relay's own shape, and nothing goes upstream."""

from __future__ import annotations

import asyncio
import json
import random
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.errors import RelayError
from tests.relay.conftest import Relay

BODY = b'{"model":"claude-opus-5-5","messages":[{"role":"user","content":"x"}]}'


async def _send(relay: Relay, raw: bytes, wait: float = 5.0) -> tuple[int, dict[str, str], bytes]:
    """Send bytes; return status, headers and body of the first answer (0 when there is none)."""
    parts = urlsplit(relay.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(raw)
        async with asyncio.timeout(wait):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            return int(lines[0].split(" ")[1]), headers, body
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        return 0, {}, b""
    finally:
        writer.transport.abort()


def _request(
    relay: Relay,
    *,
    line: str = "POST /v1/messages HTTP/1.1",
    host: str | None = "",
    extra: tuple[str, ...] = (),
    length: str | None = None,
    body: bytes = BODY,
) -> bytes:
    lines = [line]
    if host is not None:
        lines.append(f"Host: {host or urlsplit(relay.url).netloc}")
    lines.append(f"Authorization: Bearer {relay.key}")
    lines.append("anthropic-version: 2023-06-01")
    lines += extra
    if length != "":
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


HEADS: dict[str, dict[str, object]] = {
    "both lengths, length last": {"extra": ("Transfer-Encoding: chunked",)},
    "two different lengths": {"extra": ("Content-Length: 3",)},
    "a length that is none": {"length": "+5"},
    "a hexadecimal length": {"length": "0x10"},
    "an unknown coding": {"extra": ("Transfer-Encoding: xchunked",), "length": ""},
    "two codings": {"extra": ("Transfer-Encoding: gzip, chunked",), "length": ""},
    "an absolute target": {"line": "POST http://evil.example/v1/messages HTTP/1.1"},
    "a fragment": {"line": "POST /v1/messages#x HTTP/1.1"},
    "the star target": {"line": "OPTIONS * HTTP/1.1"},
    "a wrong host": {"host": "evil.example"},
    "no host": {"host": None},
    "two hosts": {"extra": ("Host: localhost",)},
    "a folded header": {"extra": ("X-A: 1\r\n 2",)},
    "a space before the colon": {"extra": ("X-A : 1",)},
    "a NUL in a value": {"extra": ("X-A: a\x00b",)},
    "a bare CR in a value": {"extra": ("X-A: a\rb",)},
    "an underscore name": {"extra": ("X_A: 1",)},
    "two authorizations": {"extra": ("Authorization: Bearer rk_other",)},
    "two different keys": {"extra": ("x-api-key: rk_other",)},
    "a compressed body": {"extra": ("Content-Encoding: gzip",)},
    "an upgrade to h2c": {"extra": ("Upgrade: h2c", "Connection: Upgrade")},
    "dots in the path": {"line": "POST /v1/../v1/messages HTTP/1.1"},
    "an escape in the path": {"line": "POST /v1/mess%61ges HTTP/1.1"},
    "two slashes": {"line": "POST //v1/messages HTTP/1.1"},
    "a path parameter": {"line": "POST /v1/messages;a=b HTTP/1.1"},
    "a backslash": {"line": "POST /v1\\messages HTTP/1.1"},
    "101 headers": {"extra": tuple(f"X-{i}: 1" for i in range(101))},
    "33 KiB of headers": {"extra": ("X-A: " + "a" * 33_000,)},
    "a target of 9,000": {"line": "POST /v1/messages?" + "a" * 9000 + " HTTP/1.1"},
    "an old version": {"line": "POST /v1/messages HTTP/0.9"},
    "a lower-case method": {"line": "post /v1/messages HTTP/1.1"},
    "trailers": {
        "extra": ("Transfer-Encoding: chunked",),
        "length": "",
        "body": b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
    },
    "a bare LF in the chunks": {
        "extra": ("Transfer-Encoding: chunked",),
        "length": "",
        "body": b"5\nhello\n0\n\n",
    },
    "JSON without a bottom": {"body": b'{"model":"claude-x","a":' + b"[" * 100_000},
    "no JSON": {"body": b"\xff\xfe{}"},
}


@pytest.mark.parametrize("name", HEADS)
async def test_it_is_refused_and_nothing_goes_upstream(relay: Relay, name: str) -> None:
    await relay.link("ada")
    relay.simulator.clear_requests()

    status, headers, body = await _send(relay, _request(relay, **HEADS[name]))  # type: ignore[arg-type]

    assert 400 <= status < 500, status
    assert headers["x-relay-error"]
    assert headers["x-should-retry"] == "false"
    assert json.loads(body)["type"] == "error"
    assert relay.simulator.requests() == []


async def test_a_websocket_is_refused_without_a_traceback(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    extra = ("Upgrade: websocket", "Connection: Upgrade", key, "Sec-WebSocket-Version: 13")
    raw = _request(relay, line="GET /v1/messages HTTP/1.1", extra=extra, length="", body=b"")

    status, _, _ = await _send(relay, raw)

    assert status == 403
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_bare_line_feeds_are_refused(relay: Relay) -> None:
    await relay.link("ada")
    relay.simulator.clear_requests()

    status, _, _ = await _send(relay, _request(relay).replace(b"\r\n", b"\n"))

    assert status == 400
    assert relay.simulator.requests() == []


async def test_a_half_request_ties_nothing_up(relay: Relay) -> None:
    await relay.link("ada")
    parts = urlsplit(relay.url)
    halves = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(50)]
    for _, writer in halves:
        writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: lo")

    answer = await relay.ask()

    assert answer.status_code == 200
    for _, writer in halves:
        writer.transport.abort()


def _pieces() -> st.SearchStrategy[bytes]:
    tokens = [
        b"POST", b"GET", b" ", b"/v1/messages", b"/v1/models", b"/", b"HTTP/1.1", b"\r\n", b"\n",
        b"Host: localhost", b"Host: x", b"Content-Length: ", b"0", b"5", b"-1", b"99999999999",
        b"Transfer-Encoding: chunked", b"Authorization: Bearer rk_x", b"x-api-key: ", b"%2e", b"..",
        b"\x00", b"\xff", b"{}", b'{"model":"claude-x"}', b"\r\n\r\n", b"0\r\n\r\n",
        b"Expect: 100-continue", b"; ", b":", b"Content-Encoding: gzip", b"[", b'"', b"\t",
        b"Connection: keep-alive, upgrade", b"Upgrade: websocket", b"?a=b", b";", b"//", b"\\",
    ]  # fmt: skip
    piece = st.sampled_from(tokens) | st.binary(max_size=12)
    return st.lists(piece, max_size=25).map(b"".join)


@pytest.mark.slow
async def test_no_bytes_whatsoever_cause_a_500(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    await relay.link("ada")
    loop = asyncio.get_running_loop()
    seen: list[bytes] = []

    @settings(
        max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(_pieces(), st.booleans())
    def collect(raw: bytes, is_whole: bool) -> None:
        key = f"authorization: Bearer {relay.key}\r\n".encode()
        head = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n" + key
        seen.append(head + raw + b"\r\n\r\n" if is_whole else raw + b"\r\n\r\n")

    await loop.run_in_executor(None, collect)
    random.shuffle(seen)
    for start in range(0, len(seen), 25):
        batch = seen[start : start + 25]
        answers = await asyncio.gather(*(_send(relay, raw, 0.5) for raw in batch))
        for raw, (status, _, _) in zip(batch, answers, strict=True):
            assert status < 500 or status == 503, raw
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert (await relay.ask()).status_code == 200


def test_every_error_of_the_relay_has_the_shape_of_the_api() -> None:
    kinds = RelayError.__subclasses__()

    assert len(kinds) > 15
    for kind in kinds:
        body = json.loads(kind().body("rly_1"))
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}
        assert body["request_id"] == "rly_1"
        assert kind.final or kind.status >= 408 or kind.status < 500
