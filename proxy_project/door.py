"""The HTTP front door: the limits an ASGI application cannot set, and the abort it cannot do."""

from __future__ import annotations

import functools
import logging
import math
import secrets
import socket
import struct
from asyncio import Transport

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from relay.errors import error_body

MAX_HEAD, MAX_FIELDS, MAX_TARGET = 32 * 1024, 100, 8 * 1024
# Requests waiting on one connection; one that asks for more than this only costs.
MAX_PIPELINED = 16
# What a client may still send after it was answered, so that it reads the answer at all.
MAX_LATE = 64 * 1024 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

IDLE, HEAD, BODY, REFUSED = range(4)


class Refused(Exception):
    """Raised inside the parser's callbacks to stop it; the refusal is kept by the door."""


class Door(HttpToolsProtocol):
    """One connection of uvicorn with limits on size, count and time, refusing in our own words.

    It leans on uvicorn's private shape; the exact version is locked and test_door.py guards it.
    """

    head_seconds = 10.0
    body_idle_seconds = 30.0
    linger_seconds = 2.0
    flush_seconds = 5.0
    unread_seconds = 120.0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Start the clock for the first head."""
        super().connection_made(transport)
        self._stage, self._fed, self._late = IDLE, 0, 0
        self._refusal = (400, "bad_request", "The request is not valid HTTP/1.1.")
        self._deadline = self.loop.time() + self.head_seconds
        self._unfinished: set[RequestResponseCycle] = set()
        self._unread, self._unread_since = 0, self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request of this connection; uvicorn tells only the newest one."""
        super().connection_lost(exc)
        for cycle in self._unfinished:
            cycle.disconnected = cycle.disconnected or not cycle.response_complete
            cycle.message_event.set()
        self._unfinished.clear()

    def data_received(self, data: bytes) -> None:
        """Count and time what comes, then let the parser have it."""
        if self._stage == REFUSED:
            return self._swallow(len(data))
        if self._stage == BODY:
            self._deadline = self.loop.time() + self.body_idle_seconds
            if self.cycle is not None and self.cycle.response_complete:
                self._swallow(len(data))
        else:
            self._fed += len(data)
            if self._deadline == math.inf:
                self._deadline = self.loop.time() + self.head_seconds
        if not self.transport.is_closing():
            super().data_received(data)
        # One endless field or target reaches no callback that could count it.
        if self._fed > MAX_HEAD and self._stage == HEAD:
            self._refuse_now(431, "headers", "The request head is too large.")

    def _swallow(self, size: int) -> None:
        self._late += size
        if self._late > MAX_LATE:
            self.transport.abort()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        super().on_message_begin()
        self._stage = HEAD

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one field. Without super(): this runs some twenty times per request."""
        if self._stage == BODY:
            # uvicorn would add it to the headers of a request that is already being served.
            self._refuse("bad_request", "Trailer fields are not accepted.")
        if len(self.headers) >= MAX_FIELDS:
            self._refuse("headers", "The request has too many header fields.", status=431)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the head, let uvicorn start the application and hand it the abort."""
        self._check_head()
        self._unfinished = {one for one in self._unfinished if not one.response_complete}
        if len(self._unfinished) >= MAX_PIPELINED:
            self._refuse("bad_request", "Too many requests wait on this connection.")
        self._stage, self._late = BODY, 0
        self._deadline = self.loop.time() + self.body_idle_seconds
        scope = self.scope
        super().on_headers_complete()
        cycle = self.cycle
        # A websocket's handshake makes no cycle; the one seen here is then an earlier request's.
        if cycle is not None and cycle.scope is scope:
            scope["extensions"] = {"carousel.abort": functools.partial(self.abort, cycle)}  # type: ignore[dict-item]
            self._unfinished.add(cycle)

    def _check_head(self) -> None:
        size = hosts = 0
        for name, value in self.headers:
            size += len(name) + len(value)
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                self._refuse("bad_request", "The only transfer-encoding accepted is chunked.")
        if size > MAX_HEAD:
            self._refuse("headers", "The request head is too large.", status=431)
        if hosts != 1:
            self._refuse("bad_request", "The request must have exactly one Host.")
        if len(self.url) > MAX_TARGET:
            self._refuse("bad_path", "The request target is too long.")
        # Absolute form, `OPTIONS *` and fragments would reach the application as something else.
        if not self.url.startswith(b"/") or b"#" in self.url:
            self._refuse("bad_path", "The request target must be a path that starts with '/'.")
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            self._refuse("bad_request", "The HTTP version is not supported.")

    def on_message_complete(self) -> None:
        """Disarm the clock; uvicorn's keep-alive timer and the application's rules take over."""
        super().on_message_complete()
        self._stage, self._fed, self._deadline = IDLE, 0, math.inf
        if self.cycle is not None and self.cycle.response_complete:
            # Answered before its body had come: that keep-alive timer is already cancelled.
            self._deadline = self.loop.time() + self.timeout_keep_alive

    # Time

    def sweep(self, now: float) -> None:
        """End what has taken too long; `now` is the loop's time. Called once a second."""
        if self._is_unread(now):
            return self._reset()
        if now < self._deadline or self.transport.is_closing():
            return
        if self._stage == REFUSED:
            self.transport.abort()
        elif self._stage == BODY and self.flow.read_paused:
            # The application does not read: not the client's fault.
            self._deadline = now + self.body_idle_seconds
        elif self._stage == BODY:
            self._refuse_now(408, "body_timeout", "The request body took too long to arrive.")
        elif self.cycle is not None and not self.cycle.response_complete:
            # Half of a next request, or a stray line end, while an answer is on its way.
            self._deadline = now + self.head_seconds
        elif self._fed:
            self._refuse_now(408, "body_timeout", "The request head took too long to arrive.")
        else:
            self.transport.close()

    def _is_unread(self, now: float) -> bool:
        """Tell whether the client has taken nothing of a full send queue for too long."""
        waiting = self.transport.get_write_buffer_size()
        if waiting != self._unread or not waiting:
            self._unread, self._unread_since = waiting, now
        return now - self._unread_since >= self.unread_seconds

    # Refusing and aborting

    def _refuse(self, code: str, message: str, *, status: int = 400) -> None:
        # httptools turns this into its own error, and uvicorn that into send_400_response.
        self._refusal = (status, code, message)
        raise Refused(message)

    def _refuse_now(self, status: int, code: str, message: str) -> None:
        self._refusal = (status, code, message)
        self.send_400_response(message)

    def send_400_response(self, msg: str) -> None:
        """Answer with the refusal and close, but never write into an answer that has begun."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or cycle.scope is not self.scope:
                return self._abort_unfinished()
            cycle.disconnected = True
            cycle.message_event.set()
        elif self._stage == BODY:
            return self.transport.close()
        self.transport.write(self._refusal_bytes())
        # Half-closed, and the rest is read for a while: a reset would overtake the refusal.
        self._stage, self._late = REFUSED, 0
        self._deadline = self.loop.time() + self.linger_seconds
        self.transport.write_eof()
        self.flow.resume_reading()

    def _refusal_bytes(self) -> bytes:
        status, code, message = self._refusal
        body = error_body("invalid_request_error", message, f"rly_{secrets.token_hex(12)}")
        fields = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            (b"x-relay-error", code.encode()),
        ]
        if status != 408:
            fields.append((b"x-should-retry", b"false"))
        lines = [b"%b: %b\r\n" % field for field in fields]
        return b"".join([STATUS_LINE[status], *lines, b"\r\n", body])

    def abort(self, cycle: RequestResponseCycle, *, hard: bool = True) -> None:
        """End an answer without its final chunk; nothing when it is already complete.

        hard: reset, which also frees the send queue of a client that does not read.
        soft: close after everything written so far, and reset when that takes too long.
        The application must then return; its sends do nothing and it sees `http.disconnect`.
        """
        if cycle.response_complete or self.transport.is_closing():
            return
        cycle.disconnected = True
        if hard:
            self._reset()
        else:
            self.transport.close()
            self.loop.call_later(self.flush_seconds, self._reset)
        self.flow.resume_writing()
        cycle.message_event.set()

    def end(self) -> None:
        """End the connection at the end of a drain, whatever it is doing."""
        self._abort_unfinished()
        self.transport.close()

    def _abort_unfinished(self) -> None:
        for cycle in list(self._unfinished):
            self.abort(cycle, hard=False)

    def _reset(self) -> None:
        # After connection_lost the number of the descriptor may be another connection's.
        if self.parser is None:
            return
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()


class NoFlood(logging.Filter):
    """Drops the line that uvicorn logs for each refused request; anyone could fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a line that a stranger can cause at will."""
        return record.msg not in ("Invalid HTTP request received.", "Unsupported upgrade request.")
