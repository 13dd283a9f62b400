"""Attempts by aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from weakref import WeakKeyDictionary, WeakSet

import aiohttp
import aiohttp_socks
from yarl import URL

from relay.upstream.base import (
    DIRECT,
    Body,
    Headers,
    Lost,
    NotConnected,
    ProxyFailed,
    Route,
    Stale,
)
from relay.upstream.sessions import Sessions

# A way that nobody took for so long has no connection open any more; its sessions may go.
UNUSED_SECONDS = 60.0
PROXY_AUTH_REQUIRED = 407
NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
NO_PROXY = (
    *NO_CONNECTION,
    aiohttp.ClientHttpProxyError,
    aiohttp_socks.ProxyError,
    aiohttp_socks.ProxyConnectionError,
    aiohttp_socks.ProxyTimeoutError,
    EOFError,
)

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

    def __init__(self, response: aiohttp.ClientResponse, sessions: Sessions) -> None:
        self._response = response
        self._sessions: Sessions | None = sessions
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
        if self._sessions is not None:
            _leave(self._sessions)
            self._sessions = None

    def _break(self, _: object) -> None:
        # After bad framing aiohttp closes the connection, but wakes nobody who reads the body.
        content = self._response.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError())


class AiohttpUpstream:
    """The sessions of every way that is in use."""

    def __init__(self) -> None:
        self._ways: dict[Route, Sessions] = {}

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: Body,
        *,
        fresh: bool = False,
        route: Route = DIRECT,
    ) -> AiohttpResponse:
        """Make one attempt; raise NotConnected, ProxyFailed, Stale or Lost."""
        trace = SimpleNamespace(reused=False, connected=False)
        sessions = await self._sessions(route)
        sessions.in_use += 1
        try:
            # The address goes out as it came: yarl must not tidy the query.
            response = await sessions.session(fresh=fresh).request(
                method,
                URL(url, encoded=True),
                data=body or None,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=trace,
            )
        except BaseException as error:
            _leave(sessions)
            if isinstance(error, (aiohttp.ClientError, OSError, *NO_PROXY)):
                raise _failure(error, trace, route)(type(error).__name__) from None
            raise
        made = AiohttpResponse(response, sessions)
        if route.proxy and response.status == PROXY_AUTH_REQUIRED:
            made.close()
            raise ProxyFailed(str(PROXY_AUTH_REQUIRED))
        return made

    async def close(self) -> None:
        """Close every connection."""
        ways, self._ways = self._ways, {}
        for sessions in ways.values():
            await sessions.close()

    async def _sessions(self, route: Route) -> Sessions:
        if route not in self._ways:
            # Whoever changes an account's proxy leaves the old way behind.
            await self._close_unused()
        if route not in self._ways:
            self._ways[route] = Sessions(route)
        return self._ways[route]

    async def _close_unused(self) -> None:
        before = asyncio.get_running_loop().time() - UNUSED_SECONDS
        unused = [
            route
            for route, sessions in self._ways.items()
            if not sessions.in_use and sessions.idle_since < before
        ]
        for sessions in [self._ways.pop(route) for route in unused]:
            await sessions.close()


def _failure(
    error: BaseException, trace: SimpleNamespace, route: Route
) -> type[NotConnected | ProxyFailed | Stale | Lost]:
    """Return what an attempt's failure is.

    Behind a proxy, whatever keeps a connection from coming about is put down to the proxy: nobody
    here can tell, and another account goes another way.
    """
    if route.proxy and (isinstance(error, NO_PROXY) or not trace.connected):
        return ProxyFailed
    if isinstance(error, NO_CONNECTION):
        return NotConnected
    return Stale if trace.reused else Lost


def _leave(sessions: Sessions) -> None:
    sessions.in_use -= 1
    sessions.idle_since = asyncio.get_running_loop().time()


def _notice(closed: asyncio.Future[None]) -> None:
    """Look at how a connection ended, lest asyncio logs that nobody did."""
    if not closed.cancelled():
        closed.exception()
