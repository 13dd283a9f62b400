"""The aiohttp sessions of one way to upstreams: directly, guarded, or by an outbound proxy."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyType
from python_socks import ProxyConnectionError as PythonSocksConnectionError

from lib import outside, proxies
from lib.outside import Forbidden
from relay.upstream.base import Route

CONNECT_SECONDS = 10.0
# Below what the upstream's edge keeps a connection open for.
KEEPALIVE_SECONDS = 30.0
OURS = ("user-agent", "accept", "accept-encoding", "content-type")


class Sessions:
    """One pool of connections, unlimited; no cookies, no redirects, no decompression."""

    def __init__(self, route: Route) -> None:
        self.in_use = 0
        self.idle_since = 0.0
        self._kept = _session(route, {"keepalive_timeout": KEEPALIVE_SECONDS})
        self._fresh = _session(route, {"force_close": True})

    def session(self, *, fresh: bool) -> aiohttp.ClientSession:
        """Return the session that keeps its connections, or the one that never does."""
        return self._fresh if fresh else self._kept

    async def close(self) -> None:
        """Close every connection."""
        await self._kept.close()
        await self._fresh.close()


class GuardedSocks(ProxyConnector):
    """Connects to an address of its proxy that was checked, whatever its name leads to later."""

    def __init__(self, host: str, port: int, *args: Any, **options: Any) -> None:
        super().__init__(host, port, *args, **options)
        self._place = host, port

    async def _connect_via_proxy(self, *args: Any, **options: Any) -> Any:
        try:
            found = await asyncio.to_thread(proxies.addresses, *self._place)
        except Forbidden as error:
            raise ProxyConnectionError(str(error)) from None
        for last, address in zip([*[False] * (len(found) - 1), True], found, strict=True):
            # Read before anything is awaited, so that no other connection gets it.
            self._proxy_host = address
            try:
                return await super()._connect_via_proxy(*args, **options)
            except PythonSocksConnectionError:
                if last:
                    raise
        raise AssertionError("a host that is known has an address")


def _session(route: Route, keep: dict[str, Any]) -> aiohttp.ClientSession:
    seen = aiohttp.TraceConfig()
    seen.on_connection_reuseconn.append(_mark_reused)
    seen.on_connection_create_end.append(_mark_connected)
    proxy = proxies.parse(route.proxy) if route.proxy else None
    by_http = proxy is not None and not proxy.is_socks
    return aiohttp.ClientSession(
        connector=_connector(route, proxy, keep),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=OURS,
        # sock_connect alone would leave out the look-up of the name.
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
        trace_configs=[seen],
        requote_redirect_url=False,
        proxy=route.proxy if by_http else None,
    )


def _connector(
    route: Route, proxy: proxies.Proxy | None, keep: dict[str, Any]
) -> aiohttp.TCPConnector:
    if proxy is not None and proxy.is_socks:
        # The name is looked up there: with either scheme nobody here learns where requests go.
        return GuardedSocks(
            proxy.host,
            proxy.port,
            ProxyType.SOCKS5,
            username=proxy.user or None,
            password=proxy.password or None,
            rdns=True,
            limit=0,
            **keep,
        )
    guard = outside.guarded_socket if route.is_guarded else None
    guard = proxies.guarded_socket if proxy is not None else guard
    return aiohttp.TCPConnector(limit=0, socket_factory=guard, **keep)


async def _mark_reused(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx.reused = context.trace_request_ctx.connected = True


async def _mark_connected(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx.connected = True
