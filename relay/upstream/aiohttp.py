"""Attempts by aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import aiohttp
from yarl import URL

from relay.upstream.base import Body, Headers, Lost, NotConnected, Stale

CONNECT_SECONDS = 10.0
# Below what the upstream's edge keeps a connection open for.
KEEPALIVE_SECONDS = 30.0
OURS = ("user-agent", "accept", "accept-encoding", "content-type")

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AiohttpUpstream] = WeakKeyDictionary()
_noticed: WeakSet[asyncio.Future[None]] = WeakSet()


def client() -> AiohttpUpstream:
    """Return the running loop's client."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        _clients[loop] = AiohttpUpstream()
    return _clients[loop]


async def close() -> None:
    """Close the running loop's client."""
    upstream = _clients.pop(asyncio.get_running_loop(), None)
    if upstream is not None:
        await upstream.close()


class AiohttpResponse:
    """An answer read as it comes."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        connection = response.connection
        protocol = connection.protocol if connection is not None else None
        self._closed = protocol.closed if protocol is not None else None
        if self._closed is not None:
            self._closed.add_done_callback(self._break)
            if self._closed not in _noticed:
                _noticed.add(self._closed)
                self._closed.add_done_callback(_notice)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Headers:
        """The headers as they came."""
        return self._response.raw_headers

    async def read(self) -> bytes:
        """Return whatever is there, b"" at the regular end; raise Lost when it breaks."""
        content = self._response.content
        try:
            return await content.readany()
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            # RuntimeError: it was closed while nobody read. aiohttp raises before it gives out what
            # had arrived; a client gets every byte we had.
            kept, content._buffer = b"".join(content._buffer), type(content._buffer)()
            if kept:
                return kept
            raise Lost(type(error).__name__) from None

    def close(self) -> None:
        """Give the connection back if the body was read to its end, close it otherwise."""
        if self._closed is not None:
            self._closed.remove_done_callback(self._break)
        self._response.close()

    def _break(self, _: object) -> None:
        # After bad framing aiohttp closes the connection, but wakes nobody who reads the body.
        content = self._response.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError())


class AiohttpUpstream:
    """One pool of connections, unlimited; no cookies, no redirects, no decompression."""

    def __init__(self) -> None:
        reused = aiohttp.TraceConfig()
        reused.on_connection_reuseconn.append(_mark_reused)
        self._kept = self._session(reused, force_close=False)
        self._fresh = self._session(reused, force_close=True)

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: Body,
        *,
        fresh: bool = False,
    ) -> AiohttpResponse:
        """Make one attempt; raise NotConnected, Stale or Lost."""
        trace = SimpleNamespace(reused=False)
        session = self._fresh if fresh else self._kept
        try:
            # The address goes out as it came: yarl must not tidy the query.
            response = await session.request(
                method,
                URL(url, encoded=True),
                data=body or None,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=trace,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotConnected(type(error).__name__) from None
        except (aiohttp.ClientError, OSError) as error:
            raise (Stale if trace.reused else Lost)(type(error).__name__) from None
        return AiohttpResponse(response)

    async def close(self) -> None:
        """Close every connection."""
        await self._kept.close()
        await self._fresh.close()

    @staticmethod
    def _session(trace: aiohttp.TraceConfig, *, force_close: bool) -> aiohttp.ClientSession:
        keep: dict[str, Any] = {"force_close": True}
        if not force_close:
            keep = {"keepalive_timeout": KEEPALIVE_SECONDS}
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, **keep),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=OURS,
            # sock_connect alone would leave out the look-up of the name.
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
            trace_configs=[trace],
            requote_redirect_url=False,
        )


def _notice(closed: asyncio.Future[None]) -> None:
    """Look at how a connection ended, lest asyncio logs that nobody did."""
    if not closed.cancelled():
        closed.exception()


async def _mark_reused(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx.reused = True
