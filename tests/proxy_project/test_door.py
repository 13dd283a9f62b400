"""The door refuses what an application cannot, and cuts an answer silently."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxy_project.door import Door
from proxy_project.web import WebServer, config
from relay import drain


class QuickDoor(Door):
    head_seconds = 0.5
    body_idle_seconds = 0.5
    linger_seconds = 0.5


class Application:
    """Answers by path; remembers the scopes and how each request ended."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.ended: list[str] = []
        self.go_on = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["path"].startswith("/cut"):
            return await self._cut(scope, receive, send)
        if scope["path"] == "/stream":
            return await self._stream(receive, send)
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.ended.append("disconnect")
                return
            body += message["body"]
            more = message["more_body"]
        self.ended.append("answered")
        await _answer(send, body)

    async def _cut(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await _start(send)
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await asyncio.sleep(0.05)
        abort = scope["extensions"]["carousel.abort"]
        if scope["path"] == "/cut/soft":
            abort(hard=False)
        else:
            abort()
        await send({"type": "http.response.body", "body": b"never seen", "more_body": True})
        self.ended.append((await receive())["type"])

    async def _stream(self, receive: Any, send: Any) -> None:
        await receive()
        await _start(send)
        gone = asyncio.ensure_future(receive())
        while not self.go_on.is_set() and not gone.done():
            await send({"type": "http.response.body", "body": b"tick", "more_body": True})
            await asyncio.sleep(0.02)
        self.ended.append("gone" if gone.done() else "finished")
        gone.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _start(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def _answer(send: Any, body: bytes) -> None:
    length = str(len(body)).encode()
    headers = [(b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def server(application: Application) -> Iterator[WebServer]:
    loaded = config(application)
    loaded.load()
    loaded.http_protocol_class = QuickDoor
    server = WebServer(loaded, grace=0.5, seconds=0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    server.thread = thread  # type: ignore[attr-defined]
    yield server
    application.go_on.set()
    server.handle_exit(signal.SIGTERM, None)
    server.handle_exit(signal.SIGTERM, None)
    thread.join(5)
    drain.reset()
    assert not thread.is_alive()


@pytest.fixture
def connect(server: WebServer) -> Iterator[Callable[[], socket.socket]]:
    with contextlib.ExitStack() as stack:

        def open_one() -> socket.socket:
            address = ("127.0.0.1", server.port)  # type: ignore[attr-defined]
            return stack.enter_context(socket.create_connection(address, timeout=5))

        yield open_one


def read_all(client: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def eventually(condition: Callable[[], bool], within: float = 3.0) -> bool:
    end = time.monotonic() + within
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def assert_refused(answer: bytes, status: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"x-relay-error: %s\r\n" % code.encode() in head + b"\r\n"
    assert (b"x-should-retry: false" in head) == (status != 408)
    error = json.loads(body)
    assert error["type"] == "error"
    assert error["error"]["type"] == "invalid_request_error"
    assert error["request_id"].startswith("rly_")


def test_an_ordinary_request_passes(connect, application):
    client = connect()

    client.sendall(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi")

    assert client.recv(65536).endswith(b"\r\n\r\nhi")
    assert application.scopes[0]["headers"] == [(b"host", b"a"), (b"content-length", b"2")]


@pytest.mark.parametrize("how", ["soft", "hard"])
def test_an_abort_cuts_the_answer_without_its_final_chunk_and_silently(
    connect, application, caplog, how
):
    client = connect()

    client.sendall(f"GET /cut/{how} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
    answer = read_all(client)

    assert answer.endswith(b"5\r\nfirst\r\n")
    assert eventually(lambda: application.ended == ["http.disconnect"])
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_an_abort_reaches_an_answer_behind_which_another_request_waits(connect, application):
    client = connect()

    request = b"GET /cut/hard HTTP/1.1\r\nhost: a\r\n\r\n"
    client.sendall(request + request)
    answer = read_all(client)

    assert answer.endswith(b"5\r\nfirst\r\n")
    assert len(application.scopes) == 1


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nx: y\r\n\r\n", 400, "bad_request"),
        (b"GET http://a/ HTTP/1.1\r\nhost: a\r\n\r\n", 400, "bad_path"),
        (b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", 400, "bad_path"),
        (b"GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", 400, "bad_path"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 400, "bad_path"),
        (b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 100 + b"\r\n", 431, "headers"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", 431, "headers"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 4_000_000, 431, "headers"),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            400,
            "bad_request",
        ),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            b"2\r\nhi\r\n0\r\nx-trailer: y\r\n\r\n",
            400,
            "bad_request",
        ),
        (b"nonsense\r\n\r\n", 400, "bad_request"),
    ],
)
def test_it_refuses_in_the_relays_own_words(connect, caplog, request_bytes, status, code):
    client = connect()

    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        client.sendall(request_bytes)

    assert_refused(read_all(client), status, code)
    assert caplog.records == []


def test_a_slow_head_is_refused(connect):
    client = connect()

    client.sendall(b"GET / HTTP/1.1\r\nhost:")

    assert_refused(read_all(client), 408, "body_timeout")


def test_a_stalled_body_is_refused_and_the_application_told(connect, application):
    client = connect()

    client.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhi")

    assert_refused(read_all(client), 408, "body_timeout")
    assert eventually(lambda: application.ended == ["disconnect"])


def test_a_silent_connection_is_closed(connect):
    assert read_all(connect()) == b""


def test_a_stray_line_end_does_not_end_a_running_stream(connect, application):
    client = connect()

    client.sendall(b"GET /stream HTTP/1.1\r\nhost: a\r\n\r\n\r\n")
    time.sleep(2)
    application.go_on.set()

    assert eventually(lambda: application.ended == ["finished"])
    assert client.recv(65536 * 4).endswith(b"0\r\n\r\n")


def test_garbage_behind_a_stream_cuts_it_instead_of_writing_into_it(connect, application):
    client = connect()

    client.sendall(b"GET /stream HTTP/1.1\r\nhost: a\r\n\r\n")
    time.sleep(0.1)
    client.sendall(b"\0\0\0\0\r\n\r\n")
    answer = read_all(client)

    assert answer.endswith(b"4\r\ntick\r\n")
    assert eventually(lambda: application.ended == ["gone"])


def test_a_drain_answers_for_a_while_then_cuts_what_is_left(connect, application, server):
    idle, streaming = connect(), connect()
    streaming.sendall(b"GET /stream HTTP/1.1\r\nhost: a\r\n\r\n")
    idle.sendall(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
    assert idle.recv(65536).startswith(b"HTTP/1.1 200")

    server.handle_exit(signal.SIGTERM, None)
    time.sleep(0.1)
    late = connect()
    late.sendall(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")

    assert late.recv(65536).startswith(b"HTTP/1.1 200")
    assert read_all(idle) == b""
    answer = read_all(streaming)
    assert answer.endswith(b"4\r\ntick\r\n")
    server.thread.join(3)
    assert not server.thread.is_alive()
    assert application.ended == ["answered", "answered", "gone"]


def test_an_idle_process_ends_at_once(server):
    started = time.monotonic()

    server.handle_exit(signal.SIGTERM, None)
    server.thread.join(3)

    assert time.monotonic() - started < 0.4
