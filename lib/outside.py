"""May this address be reached? What an operator types must not lead into the private network."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from django.conf import settings

LONGEST = 500
Address = IPv4Address | IPv6Address

# Only what every parser of addresses reads in the same way: no userinfo, no fragment, no escapes
# or other scripts in the host, no space, quote, backslash or control character anywhere.
SHAPE = re.compile(
    r"(?P<scheme>[a-z][a-z0-9]{1,9})://"
    r"(?P<host>\[[0-9A-Fa-f.]{0,4}:[0-9A-Fa-f:.]{1,40}\]|(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)"
    r"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*)"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>/[!$%&'()*+,./0-9:;=@A-Z_a-z~-]*)?"
    r"(?P<query>\?[!$%&'()*+,./0-9:;=?@A-Z_a-z~-]*)?"
)
# `127.1`, `0x7f000001` and `017700000001` are addresses to some resolvers and names to others.
NUMBER = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)")

# IANA's registries of special addresses; ipaddress knows as many as its Python's version does.
SPECIAL = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24"),
            *("192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
            *("224.0.0.0/4", "240.0.0.0/4"),
            *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        ),
    )
)
PUBLIC6 = ip_network("2000::/3")
NAT64 = ip_network("64:ff9b::/96")
# Where clouds hand out the credentials of a machine; no setting opens these.
METADATA = frozenset(
    map(
        ip_address,
        (
            *("169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.169.253"),
            *("100.100.100.200", "168.63.129.16", "192.0.0.192"),
            *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
        ),
    )
)


class Forbidden(Exception):
    """The address may not be reached; the text tells the operator why and what would allow it."""


def check(url: str, *, with_query: bool = False, resolves_here: bool = True) -> None:
    """Raise Forbidden unless `url` is https to a public host, or what the settings allow besides.

    Blocking: looks the name up. `resolves_here` False is for what is reached by a proxy that
    resolves names itself: then one that is unknown here is let through.
    """
    scheme, host, port = parts(url, ("https", "http"), with_query=with_query)
    try:
        found = resolve(host, port)
    except Forbidden:
        if resolves_here or scheme != "https":
            raise
        return
    check_addresses(scheme, found)


def check_addresses(scheme: str, addresses: Iterable[str]) -> None:
    """Raise Forbidden if any of these numeric addresses may not be reached by `scheme`."""
    for text in addresses:
        address = unwrapped(text)
        if why := refusal(text):
            raise Forbidden(why)
        if scheme != "https" and is_public(address) and not _is_listed(address):
            raise Forbidden("The address must begin with https://.")


def parts(
    url: str, schemes: Iterable[str], *, with_query: bool = False
) -> tuple[str, str, int | None]:
    """Return scheme, host and port of an address without ambiguities; raise Forbidden."""
    if len(url) > LONGEST:
        raise Forbidden(f"The address is longer than {LONGEST} characters.")
    match = SHAPE.fullmatch(url)
    if match is None:
        raise Forbidden(
            "This is not an address that can be used: it must look like https://host/path, without "
            "user name, password and fragment; a name in another script is written as xn--."
        )
    if match["scheme"] not in schemes:
        raise Forbidden("The address must begin with https://.")
    if match["query"] and not with_query:
        raise Forbidden("The address must not have a query.")
    host = match["host"].strip("[]")
    if int(match["port"] or 1) > 65535 or not _is_unambiguous(host):
        raise Forbidden("The address has a host or a port that cannot be.")
    return match["scheme"], host.lower(), int(match["port"]) if match["port"] else None


def resolve(host: str, port: int | None = None) -> list[str]:
    """Return the numeric addresses of a host, all of them; raise Forbidden if it has none."""
    try:
        found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Forbidden(f"The name {host} is not known.") from None
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def refusal(address: str) -> str:
    """Return why a numeric address may not be reached; empty if it may."""
    found = unwrapped(address)
    if found in METADATA:
        return "The address leads to the metadata service of a cloud."
    if is_public(found) or _is_listed(found):
        return ""
    if found.is_loopback:
        return "The address leads to this machine; ALLOW_LOOPBACK_UPSTREAMS would allow it."
    return (
        "The address leads into a private or reserved network; "
        "PRIVATE_UPSTREAMS lists those that may be reached."
    )


def unwrapped(address: str) -> Address:
    """Return the address itself, or the IPv4 address that an IPv6 one stands for."""
    found = ip_address(address)
    if isinstance(found, IPv4Address):
        return found
    plain = IPv6Address(int(found))  # without a zone
    if plain in NAT64:
        return IPv4Address(int(plain) & 0xFFFFFFFF)
    teredo = plain.teredo
    return plain.ipv4_mapped or plain.sixtofour or (teredo[1] if teredo else plain)


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the internet at large."""
    if address.version == 6 and address not in PUBLIC6:
        return False
    return not any(address in network for network in SPECIAL)


def guarded_socket(info: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an address that may be reached (aiohttp's `socket_factory`).

    Asked for each connection, after the name was looked up: so a name that has changed its address
    since it was checked leads nowhere.
    """
    family, kind, protocol, _, where = info
    if why := refusal(str(where[0])):
        raise OSError(why)
    return socket.socket(family, kind, protocol)


def _is_listed(address: Address) -> bool:
    config = settings.CONFIG
    if address.is_loopback and config.allow_loopback_upstreams:
        return True
    return any(address in ip_network(n, strict=False) for n in config.private_upstreams)


def _is_unambiguous(host: str) -> bool:
    if ":" not in host and not NUMBER.fullmatch(host.rpartition(".")[2]):
        return len(host) <= 253
    try:
        return bool(ip_address(host))
    except ValueError:
        return False
