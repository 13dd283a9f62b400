"""A proxy is connected to only where one may be, wherever its name leads by then."""

from __future__ import annotations

import socket
from typing import Any

import httpx2
import pytest

from lib import http, proxies
from relay.upstream import aiohttp
from relay.upstream.base import ProxyFailed, Route
from tests.relay.proxies import HttpProxy, SocksProxy

TARGET = "http://127.0.0.1:9/"
kinds = pytest.mark.parametrize("kind", [HttpProxy, SocksProxy])


@pytest.mark.parametrize(
    ("address", "loopback", "may"),
    [
        ("10.1.2.3", False, True),
        ("192.168.0.1", False, True),
        ("93.184.216.34", False, True),
        ("127.0.0.1", False, False),
        ("127.0.0.1", True, True),
        ("::1", False, False),
        ("::ffff:127.0.0.1", False, False),
        ("0.0.0.0", False, False),
        ("169.254.169.254", True, False),
        ("::ffff:169.254.169.254", True, False),
        ("fd00:ec2::254", True, False),
    ],
)
def test_where_a_proxy_may_be(settings: Any, address: str, loopback: bool, may: bool) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"allow_loopback_upstreams": loopback})
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    info = family, socket.SOCK_STREAM, 0, "", (address, 1)

    assert bool(proxies.refusal(address)) is not may
    if may:
        proxies.guarded_socket(info).close()
    else:
        with pytest.raises(OSError, match="The address leads to"):
            proxies.guarded_socket(info)


@kinds
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_proxy_that_turns_out_to_be_this_machine_is_not_connected_to(
    kind: type[HttpProxy], host: str
) -> None:
    async with kind() as proxy:
        url = proxy.url().replace("127.0.0.1", host)

        with pytest.raises(ProxyFailed):
            await aiohttp.client().send("GET", TARGET, [], b"", route=Route(url))
        async with http.client(proxy=url) as client:
            with pytest.raises(httpx2.ConnectError, match="The address leads to this machine"):
                await client.get(TARGET)

        assert proxy.asked == []
    await aiohttp.close()
