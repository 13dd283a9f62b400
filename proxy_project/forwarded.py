"""What a proxy says of its client counts only if the proxy is one of TRUSTED_PROXIES."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import cache
from typing import Any

from django.conf import settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
FORWARDED = (b"forwarded", b"x-forwarded-", b"x-real-ip")


def only_from_proxies(application: Any) -> Any:
    """Return the app; from any other peer the forwarding headers are taken out before it looks."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not is_trusted(scope.get("client")):
            kept = [item for item in scope["headers"] if not item[0].startswith(FORWARDED)]
            scope = scope | {"headers": kept}
        await application(scope, receive, send)

    return app


def is_trusted(peer: tuple[str, int] | None) -> bool:
    """Tell whether a connection comes from one of the networks in TRUSTED_PROXIES."""
    proxies = settings.CONFIG.trusted_proxies
    if not proxies or peer is None:
        return False
    try:
        address = ipaddress.ip_address(peer[0])
    except ValueError:
        return False
    return any(address in network for network in _networks(tuple(proxies)))


@cache
def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)
