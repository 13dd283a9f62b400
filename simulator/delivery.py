"""Sends an answer over the wire and puts the scripted faults on top of it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Iterator

from aiohttp import web

from .answer import Answer
from .recorder import Entry
from .script import Action
from .sse import frame
from .told import by_body, by_event

STOP = b"event: message_stop\n"
GZIP_WBITS = 31


async def deliver(
    request: web.Request, answer: Answer, action: Action, entry: Entry
) -> web.StreamResponse:
    """Send the head and the body; returns the finished response, or never when it is cut."""
    if action.gzip:
        answer.headers["content-encoding"] = "gzip"
    response = web.StreamResponse(status=answer.status)
    for name, value in {**answer.headers, **action.headers}.items():
        if value is not None:
            response.headers[name] = value
    if not action.gzip:
        response.content_length = _length(answer)
    entry.status = answer.status
    await response.prepare(request)
    if action.first_byte_delay:
        await asyncio.sleep(action.first_byte_delay)
    wire = _Wire(request, response, action, entry)
    if answer.status == 200 and answer.pieces is None:
        entry.told = by_body(answer.body)
    async for chunk in _encoded(answer, action):
        entry.told += by_event(chunk, entry.sent_bytes + len(chunk), entry.told)
        await wire.send(chunk)
    await response.write_eof()
    return response


async def hang_up(request: web.Request, entry: Entry, *, hard: bool) -> None:
    """Close the connection under the client, with RST when `hard`; never returns.

    The server cancels the handler as soon as the connection is lost.
    """
    entry.was_cut = True
    transport = request.transport
    if transport is not None:
        # Asyncio tells nobody when a transport's buffer has gone out; aborting would lose it.
        while transport.get_write_buffer_size():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        if hard:
            # Lingering for zero seconds turns the close into a reset.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
        transport.abort()
    await asyncio.Event().wait()


class _Wire:
    """Writes body bytes up to the scripted borders: pieces, the stall, the cut."""

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        action: Action,
        entry: Entry,
    ) -> None:
        self._request = request
        self._response = response
        self._action = action
        self._entry = entry
        self._stall_after = action.stall_after
        self._is_bodiless = request.method == "HEAD" or response.status in (204, 304)

    async def send(self, data: bytes) -> None:
        if self._is_bodiless:
            return
        await self._halt()
        while data:
            size = self._room(len(data))
            await self._response.write(data[:size])
            self._entry.sent_bytes += size
            data = data[size:]
            await self._halt()
            if self._action.piece:
                # Lets the loop flush, so that the client sees separate reads.
                await asyncio.sleep(0)

    def _room(self, size: int) -> int:
        sent = self._entry.sent_bytes
        borders = [b - sent for b in (self._action.cut_after, self._stall_after) if b is not None]
        return min([size, self._action.piece or size, *borders])

    async def _halt(self) -> None:
        sent = self._entry.sent_bytes
        if self._stall_after is not None and sent >= self._stall_after:
            self._stall_after = None
            if self._action.stall_seconds is None:
                await asyncio.Event().wait()
            await asyncio.sleep(self._action.stall_seconds or 0)
        if self._action.cut_after is not None and sent >= self._action.cut_after:
            await hang_up(self._request, self._entry, hard=self._action.reset is True)


async def _encoded(answer: Answer, action: Action) -> AsyncIterator[bytes]:
    """Yield the chunks of the body at the scripted pace, compressed if asked for."""
    zipper = zlib.compressobj(wbits=GZIP_WBITS) if action.gzip else None
    is_first = True
    for chunk in _chunks(answer, action):
        if action.pace and not is_first:
            await asyncio.sleep(action.pace)
        is_first = False
        if zipper is None:
            yield chunk
        else:
            yield zipper.compress(chunk) + zipper.flush(zlib.Z_SYNC_FLUSH)
    if zipper is not None:
        yield zipper.flush()


def _length(answer: Answer) -> int | None:
    if answer.pieces is not None:
        return answer.length
    return len(answer.body) if answer.events is None else None


def _chunks(answer: Answer, action: Action) -> Iterator[bytes]:
    if answer.pieces is not None:
        yield from answer.pieces
        return
    if answer.events is None:
        step = action.piece or len(answer.body) or 1
        for start in range(0, len(answer.body), step):
            yield answer.body[start : start + step]
        return
    for event in _scripted_events(answer.events, action):
        yield event.replace(b"\n", b"\r\n") if action.crlf else event


def _scripted_events(events: list[bytes], action: Action) -> Iterator[bytes]:
    if action.error_event is not None:
        yield from events[: action.after_events]
        yield frame({"type": "error", "error": action.error_event})
        return
    for event in events:
        if not (action.omit_stop and event.startswith(STOP)):
            yield event


def scripted_body(action: Action) -> bytes:
    """Return the body a script gives in full."""
    if isinstance(action.body, str):
        return action.body.encode()
    return json.dumps(action.body).encode()
