"""A request's body on its way through: read only as fast as the upstream takes it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from relay.errors import BodyTimeout, ClientGone, Encoding, RelayError, TooLarge
from relay.request import first

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

IDLE_SECONDS = 30.0
TOTAL_SECONDS = 3600.0
# How long the upstream may take nothing of a body.
STALLED_SECONDS = 180.0
# How long it may think about a body that it has.
ANSWER_SECONDS = 600.0


class Upload:
    """A body that is passed on piece by piece, once.

    `begun` tells that a byte may have gone out, `failure` why the body ended early. Raises Encoding
    or TooLarge at once where the head says enough: a client that waits for "100 Continue" then
    sends nothing.
    """

    def __init__(
        self, headers: tuple[tuple[bytes, bytes], ...], receive: Receive, largest: int
    ) -> None:
        if first(headers, b"content-encoding").strip().lower() not in (b"", b"identity"):
            raise Encoding
        self.length = first(headers, b"content-length").decode("latin-1")
        self.begun = False
        self.size = 0
        self.failure: RelayError | None = None
        self._receive = receive
        self._largest = largest
        self._ended = asyncio.Event()
        self._limit: asyncio.Timeout | None = None
        self._last = 0.0
        if self.length.isdigit() and int(self.length) > largest:
            raise self._too_large()

    async def pieces(self, limit: asyncio.Timeout) -> AsyncIterator[bytes]:
        """Yield the body as it comes; raise the RelayError that `failure` then also holds.

        Every piece that the upstream takes moves `limit`, to TOTAL_SECONDS at most.
        """
        self.begun = True
        self._limit = limit
        self._last = asyncio.get_running_loop().time() + TOTAL_SECONDS
        self._move(STALLED_SECONDS)
        try:
            async for piece in self._pieces():
                yield piece
                self._move(STALLED_SECONDS)
        except RelayError as error:
            self.failure = error
            raise
        self._move(ANSWER_SECONDS)

    async def gone(self) -> None:
        """Return when the client has hung up; only one task at a time may read its messages."""
        await self._ended.wait()
        if not isinstance(self.failure, ClientGone):
            await self._receive()

    async def _pieces(self) -> AsyncIterator[bytes]:
        is_more = True
        while is_more:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    message = await self._receive()
            except TimeoutError:
                raise BodyTimeout from None
            if message["type"] == "http.disconnect":
                # Before anybody who waits for this event looks.
                self.failure = ClientGone()
                self._ended.set()
                raise self.failure
            piece = message.get("body", b"")
            self.size += len(piece)
            if self.size > self._largest:
                raise self._too_large()
            is_more = message.get("more_body", False)
            if not is_more:
                self._ended.set()
            if piece:
                yield piece

    def _move(self, seconds: float) -> None:
        if self._limit is not None:
            until = asyncio.get_running_loop().time() + seconds
            # It is over when the upstream has answered before it had the whole body.
            with contextlib.suppress(RuntimeError):
                self._limit.reschedule(min(until, self._last))

    def _too_large(self) -> TooLarge:
        return TooLarge(f"Request exceeds the maximum size of {self._largest // 1024**2} MB.")
