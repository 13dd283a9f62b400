"""The outbound proxy of one account; blocking (ORM)."""

from __future__ import annotations

from accounts.errors import BadFields
from accounts.models import Account, Egress
from lib import proxies
from lib.crypto import DecryptError
from lib.outside import Forbidden


def checked(url: str) -> str:
    """Return a proxy's address if it can be used ("" is none); raise BadFields."""
    url = url.strip()
    try:
        if url:
            proxies.check(url)
    except Forbidden as error:
        raise BadFields({"proxy": str(error)}) from None
    return url


def put(account: Account, url: str) -> None:
    """Let an account's requests go by the proxy at this (checked) address, or directly."""
    Egress.objects.filter(account=account).delete()
    if url:
        Egress.objects.create(account=account, url=url)


def of(account: Account) -> str:
    """Return the address of an account's proxy, its password included; "" without one."""
    row = Egress.objects.filter(account=account).first()
    return row.url if row is not None else ""


def shown(account: Account) -> str:
    """Return the address of an account's proxy without user name and password; "" without one."""
    try:
        url = of(account)
        return proxies.parse(url).shown if url else ""
    except (DecryptError, Forbidden):
        return "unreadable"
