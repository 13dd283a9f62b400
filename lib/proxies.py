"""Addresses of outbound proxies: `http://user:password@host:port`, https, socks5 or socks5h."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
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
    """Raise Forbidden unless a proxy's address can be used; blocking: looks its name up.

    A company's proxy lies in its private network, so only this machine itself has a switch.
    """
    proxy = parse(url)
    for text in outside.resolve(proxy.host, proxy.port):
        address = outside.unwrapped(text)
        if address in outside.METADATA:
            raise Forbidden("The address leads to the metadata service of a cloud.")
        is_here = address.is_loopback or address.is_unspecified
        if is_here and not settings.CONFIG.allow_loopback_upstreams:
            raise Forbidden(
                "The address leads to this machine; ALLOW_LOOPBACK_UPSTREAMS would allow it."
            )
