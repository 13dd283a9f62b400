"""From the first byte to the last: the answer goes to the client as it comes, or is visibly cut."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.conf import settings

from lib import counters
from relay.answer import Answer
from relay.errors import ClientAuth, Header, PoolUnavailable, RelayError, SessionRevoked
from relay.headers import to_client
from relay.meter import Kept, StreamMeter, read_whole
from relay.request import Scope
from relay.trail import Ended, Trail
from relay.upstream.base import Lost

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Abort = Callable[..., None]
UPSTREAM_SILENT = 180.0
CLIENT_SILENT = 120.0
LONGEST_STREAM = 3600.0
BEHIND_THE_END = 1.0
# Whose account was disabled may come again at once: another one can serve.
REFUSALS: dict[Ended, Callable[[], RelayError]] = {
    Ended.REVOKED: ClientAuth,
    Ended.SESSION_REVOKED: SessionRevoked,
    Ended.DISABLED: lambda: PoolUnavailable(retry_after=1),
}

_open = counters.level("streams_open")


class Delivery:
    """One answer on its way; `is_stuck` tells when nothing has moved for too long."""

    def __init__(self, request_id: str, trail: Trail, scope: Scope, send: Send) -> None:
        self.request_id = request_id
        self.trail = trail
        self._send = send
        self._abort = aborter(scope, send)
        self._limit = float("inf")
        self._waits_for_upstream = False
        self._since = 0.0
        self._started = float("inf")

    async def refuse(self, error: RelayError) -> None:
        """Send one of the relay's own errors."""
        self.trail.status, self.trail.ended = error.status, Ended.REFUSED
        counters.add("refusals", error.code)
        await self._whole(error.status, error.headers(), error.body(self.request_id))

    async def answer(self, answer: Answer) -> None:
        """Send an upstream's answer; close it, whatever happens."""
        self.trail.upstream_id = answer.request_id
        try:
            if answer.ended and not answer.cut:
                if answer.status == 200:
                    self.trail.usage, self.trail.model = read_whole(answer.unpacked(answer.head))
                self.trail.is_whole = True
                self.trail.status = answer.status
                headers = to_client(answer.headers, own_login=answer.own_login)
                await self._whole(answer.status, headers, answer.head)
                self.trail.ended = Ended.COMPLETE
            else:
                await self._stream(answer)
        finally:
            answer.close()

    def is_stuck(self) -> bool:
        """Tell whether the side waited for has been silent too long, or the stream is endless."""
        now = asyncio.get_running_loop().time()
        return now - self._since > self._limit or now - self._started > LONGEST_STREAM

    def cut(self, why: Ended) -> None:
        """End the client's connection at once, without a regular end, and say why in the record."""
        self.trail.ended = why
        self.trail.is_upstream_silent = why is Ended.TIMEOUT and self._waits_for_upstream
        self._abort(hard=True)

    async def end(self, why: Ended) -> None:
        """End a request that may not go on (D36): refuse it, or cut what has begun."""
        if self.trail.first_byte_at is None:
            await self.refuse(REFUSALS[why]())
            self.trail.ended = why
        else:
            self.cut(why)

    async def _stream(self, answer: Answer) -> None:
        meter = StreamMeter()
        self._started = asyncio.get_running_loop().time()
        self.trail.usage = meter.usage
        self._wait(CLIENT_SILENT)
        headers = to_client(answer.headers, with_length=answer.is_raw, own_login=answer.own_login)
        await self._start(answer.status, headers)
        self.trail.status = answer.status
        piece, kept = answer.head, Kept()
        _open.value += 1
        try:
            while piece:
                if answer.is_stream:
                    meter.feed(piece)
                elif not answer.is_raw:
                    kept.feed(piece)
                self._wait(CLIENT_SILENT)
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                self.trail.bytes_sent += len(piece)
                self._wait(UPSTREAM_SILENT, for_upstream=True)
                piece = b"" if answer.ended else await self._next(answer, meter)
            whole = not answer.cut and (meter.complete or meter.error or not answer.is_stream)
        except Lost:
            # Behind the last event nothing is missing.
            whole = meter.complete
        finally:
            _open.value -= 1
            self.trail.model, self.trail.is_whole = meter.model, meter.complete
        self._wait(CLIENT_SILENT)
        if not whole:
            # A stream that breaks off must not look like one that ended (D28).
            self.trail.ended = Ended.UPSTREAM_CUT
            self._abort(hard=False)
            return
        await self._send({"type": "http.response.body", "body": b""})
        if kept.pieces:
            self.trail.usage, self.trail.model = read_whole(answer.unpacked(kept.body))
        self.trail.ended = Ended.ERROR_IN_STREAM if meter.error else Ended.COMPLETE
        self.trail.error = meter.error

    async def _next(self, answer: Answer, meter: StreamMeter) -> bytes:
        """Return the next bytes; behind the last event only for a moment, as nothing is missing."""
        if not meter.complete:
            return await answer.response.read()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEHIND_THE_END):
                return await answer.response.read()
        return b""

    async def _whole(self, status: int, headers: list[Header], body: bytes) -> None:
        self._wait(CLIENT_SILENT)
        await self._start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body})
        self.trail.bytes_sent += len(body)

    async def _start(self, status: int, headers: list[Header]) -> None:
        named = [*headers, (b"x-relay-request-id", self.request_id.encode())]
        if settings.CONFIG.relay_debug_headers:
            named += self.trail.as_headers()
        self.trail.first_byte_at = time.time()
        await self._send({"type": "http.response.start", "status": status, "headers": named})

    def _wait(self, limit: float, *, for_upstream: bool = False) -> None:
        self._waits_for_upstream = for_upstream
        self._limit, self._since = limit, asyncio.get_running_loop().time()


def aborter(scope: Scope, send: Send) -> Abort:
    """Return what ends this response without a regular end: `abort(hard=True|False)`.

    Hard resets the connection and frees what a client does not read; soft lets it have every byte
    that was written. Only our own protocol class (proxy_project/door.py) can do it; without it the
    exception says so, because a cut stream must never look whole.
    """
    abort: Abort | None = scope.get("extensions", {}).get("carousel.abort")
    return abort or _daphne_abort(send) or _cannot_abort


def _daphne_abort(send: Send) -> Abort | None:
    """Return the same for daphne, which `runserver` uses and which tells it no other way."""
    protocol: Any = getattr(send, "args", (None,))[0]
    if not hasattr(protocol, "transport"):
        return None

    def abort(hard: bool = True) -> None:
        protocol.transport.abortConnection() if hard else protocol.transport.loseConnection()

    return abort


def _cannot_abort(hard: bool = True) -> None:
    raise RuntimeError("this server cannot cut a response; run `manage.py serve`")
