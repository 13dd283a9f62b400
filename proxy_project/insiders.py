"""Who may see more than the outside does: this machine itself, or the bearer of an admin token."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import Error as DatabaseError

from lib import db
from proxy_project import tokens
from proxy_project.forwarded import FORWARDED

PATIENCE = 1.0


async def is_insider(scope: Any) -> bool:
    """Tell whether a request comes from this machine itself, or carries an admin token."""
    return is_from_here(scope) or await _has_token(scope)


def is_from_here(scope: Any) -> bool:
    """Tell whether a request was made on this machine, and not passed on by a proxy on it.

    Some proxies say nothing of their client, not even by Host: so with a PUBLIC_URL, which means
    that there is one, nobody counts as from here. Host keeps out pages whose name was changed to
    lead here.
    """
    peer = scope.get("client")
    if settings.CONFIG.public_url or not peer or not _is_loopback(peer[0]):
        return False
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if any(name.startswith((*FORWARDED, b"via")) for name, _ in scope["headers"]):
        return False
    return bool(hosts) and all(_names_loopback(host.decode("latin-1")) for host in hosts)


async def _has_token(scope: Any) -> bool:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, text = (given[0].decode("latin-1") if given else "").partition(" ")
    if scheme.lower() != "bearer" or not text.startswith(tokens.PREFIX):
        return False
    try:
        async with asyncio.timeout(PATIENCE):
            return await db.in_thread(tokens.authenticate, text.strip()) is not None
    except (DatabaseError, TimeoutError):
        return False


def _names_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or _is_loopback(name)


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
