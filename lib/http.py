"""The only builder of the control plane's HTTP clients."""

from __future__ import annotations

import asyncio
import ssl
from functools import cache
from typing import Any

import httpcore2
import httpx2
from socksio import SOCKSError

from lib import outside, proxies
from lib.outside import Forbidden

USER_AGENT = "carousel/0.1"
TOTAL_SECONDS = 30.0


def options(proxy: str = "", *, guarded: bool = False) -> dict[str, Any]:
    """Return what every control-plane client shares: bounded time, no redirects, own name.

    `proxy` is the address of an account's outbound proxy. `guarded` is for addresses that somebody
    has typed: what may not be reached (lib/outside.py) is not connected to, however its name is
    resolved; behind a proxy, that is the proxy's to decide.
    """
    shared: dict[str, Any] = {
        "timeout": httpx2.Timeout(TOTAL_SECONDS, connect=10.0),
        "follow_redirects": False,
        "trust_env": False,
        "verify": authorities(),
        "headers": {"user-agent": USER_AGENT},
    }
    if proxy:
        return shared | {"transport": Proxied(proxy)}
    return shared | ({"transport": Guarded()} if guarded else {})


def client(base_url: str = "", *, proxy: str = "", guarded: bool = False) -> httpx2.AsyncClient:
    """Return a new client; the caller closes it (`async with`)."""
    return httpx2.AsyncClient(base_url=base_url, **options(proxy, guarded=guarded))


@cache
def authorities() -> ssl.SSLContext:
    """Return whom TLS trusts; read once, because that takes longer than most requests."""
    return httpx2.create_ssl_context(trust_env=False)


class Proxied(httpx2.AsyncBaseTransport):
    """Connects by a proxy, and says of whatever goes wrong there that it was the proxy."""

    def __init__(self, url: str) -> None:
        self._inner = httpx2.AsyncHTTPTransport(
            trust_env=False, verify=authorities(), proxy=httpx2.Proxy(url)
        )
        # The client has no option for it; all its connections are made to the proxy.
        pool: Any = self._inner._pool
        pool._network_backend = _ToProxies(pool._network_backend)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request; raise an httpx2 error, ProxyError for what only the proxy can do."""
        try:
            return await self._inner.handle_async_request(request)
        except SOCKSError as error:
            # The client lets this through: what answers does not speak SOCKS. Nothing was sent.
            raise httpx2.ProxyError(type(error).__name__, request=request) from None

    async def aclose(self) -> None:
        """Close its connections."""
        await self._inner.aclose()


class _ToProxies(httpcore2.AsyncNetworkBackend):
    """Connects to addresses where a proxy may be, and never looks a name up a second time."""

    def __init__(self, inner: httpcore2.AsyncNetworkBackend) -> None:
        self._inner = inner

    async def connect_tcp(
        self, host: str, port: int, *args: Any, **options: Any
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first of the host's addresses that answers."""
        try:
            found = await asyncio.to_thread(proxies.addresses, host, port)
        except Forbidden as error:
            raise httpcore2.ConnectError(str(error)) from None
        for last, address in zip([*[False] * (len(found) - 1), True], found, strict=True):
            try:
                return await self._inner.connect_tcp(address, port, *args, **options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if last:
                    raise
        raise AssertionError("a host that is known has an address")

    async def sleep(self, seconds: float) -> None:
        """Wait between two tries."""
        await self._inner.sleep(seconds)


class Guarded(httpx2.AsyncBaseTransport):
    """Connects to addresses that were checked, and never looks a name up a second time."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport(trust_env=False, verify=authorities())

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request to the first of the host's addresses that answers."""
        url, extensions = request.url, request.extensions
        try:
            found = await asyncio.to_thread(outside.resolve, url.host, url.port)
            outside.check_addresses(url.scheme, found)
        except Forbidden as error:
            raise httpx2.ConnectError(str(error), request=request) from None
        # The certificate is still that of the name, and so is the Host header.
        request.extensions = {**extensions, "sni_hostname": url.host}
        for last, address in zip([*[False] * (len(found) - 1), True], found, strict=True):
            request.url = url.copy_with(host=address)
            try:
                return await self._inner.handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if last:
                    raise
            finally:
                request.url = url
        raise AssertionError("a host that is known has an address")

    async def aclose(self) -> None:
        """Close its connections."""
        await self._inner.aclose()
