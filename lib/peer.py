"""From which address a request comes; a proxy's word counts only from one of TRUSTED_PROXIES."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from django.conf import settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Whoever sends more hops than this sends nonsense.
MOST_HOPS = 32


def of(scope: Mapping[str, Any]) -> str:
    """Return the client's address, "" on a unix socket.

    It is the peer's, unless that is a trusted proxy: then the right-most hop that is none. A header
    that cannot be read is as good as none.
    """
    peer = _read((scope.get("client") or ("",))[0])
    if peer is None:
        return ""
    proxies = networks(settings.CONFIG.trusted_proxies)
    if not _is_in(peer, proxies):
        return str(peer)
    hops = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    for text in reversed(b",".join(hops).decode("latin-1").split(",")[-MOST_HOPS:]):
        hop = _read(text.strip())
        if hop is None:
            break
        if not _is_in(hop, proxies):
            return str(hop)
    return str(peer)


def is_trusted(peer: tuple[str, int] | None) -> bool:
    """Tell whether a connection comes from one of the networks in TRUSTED_PROXIES."""
    address = _read(peer[0]) if peer else None
    return address is not None and _is_in(address, networks(settings.CONFIG.trusted_proxies))


def is_within(address: str, wanted: Iterable[Network]) -> bool:
    """Tell whether an address is in one of the networks."""
    read = _read(address)
    return read is not None and _is_in(read, wanted)


def address_of(text: str) -> str:
    """Return an address as it is counted; "" for what is none."""
    return str(_read(text) or "")


@cache
def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Return networks from their texts; raise ValueError."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def _read(text: str) -> Address | None:
    """Return an address as it is counted: IPv4 in IPv6 is IPv4, and no scope stands behind it."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_in(address: Address, wanted: Iterable[Network]) -> bool:
    return any(address in network for network in wanted)
