"""Addresses of outbound proxies: `http://user:password@host:port`, https, socks5 or socks5h."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from django.conf import settings

from lib import outside
from lib.outside import Forbidden

SCHEMES = ("http", "https", "socks5", "socks5h")
SHAPE = re.compile(
    r"(?P<scheme>[a-z0-9]+)://"
    r"(?:(?P<user>[!$%&'()*+,.0-9;=A-Z_a-z~-]{1,255})"
    r"(?::(?P<password>[!$%&'()*+,.0-9;=A-Z_a-z~-]{0,255}))?@)?"
    r"(?P<place>[^/?#@\s]+)/?"
)
PLAIN = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy; user name and password are as they are, not as they stand in an address."""

    scheme: str
    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def is_socks(self) -> bool:
        """Tell whether it speaks SOCKS; else it is an HTTP proxy."""
        return self.scheme.startswith("socks")

    @property
    def shown(self) -> str:
        """Its address without user name and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse(url: str) -> Proxy:
    """Read a proxy's address; raise Forbidden, whose text never repeats it."""
    match = SHAPE.fullmatch(url) if len(url) <= outside.LONGEST else None
    if match is None or match["scheme"] not in SCHEMES:
        raise Forbidden(
            "A proxy's address looks like http://user:password@host:port; it may also begin with "
            "https, socks5 or socks5h, and special characters of a password are written as %40."
        )
    scheme, host, port = outside.parts(f"{match['scheme']}://{match['place']}", SCHEMES)
    if port is None:
        raise Forbidden("A proxy's address must name the port.")
    user, password = unquote(match["user"] or ""), unquote(match["password"] or "")
    if not PLAIN.fullmatch(user + password) or ":" in user:
        raise Forbidden("A proxy's user name and password must be plain ASCII.")
    return Proxy(scheme, host, port, user, password)


def check(url: str) -> None:
    """Raise Forbidden unless a proxy's address can be used; blocking: looks its name up."""
    proxy = parse(url)
    addresses(proxy.host, proxy.port)


def addresses(host: str, port: int) -> list[str]:
    """Return the numeric addresses of a proxy; raise Forbidden if any may not be reached."""
    found = outside.resolve(host, port)
    for address in found:
        if why := refusal(address):
            raise Forbidden(why)
    return found


def refusal(address: str) -> str:
    """Return why no proxy may be at a numeric address; empty if one may.

    A company's proxy lies in its private network, so only this machine itself has a switch.
    """
    found = outside.unwrapped(address)
    if found in outside.METADATA:
        return "The address leads to the metadata service of a cloud."
    is_here = found.is_loopback or found.is_unspecified
    if is_here and not settings.CONFIG.allow_loopback_upstreams:
        return "The address leads to this machine; ALLOW_LOOPBACK_UPSTREAMS would allow it."
    return ""


def guarded_socket(info: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an address where a proxy may be (aiohttp's `socket_factory`)."""
    family, kind, protocol, _, where = info
    if why := refusal(str(where[0])):
        raise OSError(why)
    return socket.socket(family, kind, protocol)
