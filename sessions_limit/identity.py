"""Who is calling, and which conversation a request belongs to; pure."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

import msgspec

LONGEST = 128
SHAPE = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
# Claude Code before about 2.1.78 wrote the three identities into one word.
OLD_USER_ID = re.compile(r"user_[a-fA-F0-9]{64}_account_.*?_session_([a-f0-9-]+)")


# The conversation of whoever names none.
DEFAULT = "default"
UNKNOWN_ADDRESS = "local"
Mode = Literal["key", "ip", "ip+ua"]


@dataclass(frozen=True, slots=True)
class Client:
    """Who is limited, by its `name`; `block` is what addresses count by ("" if they do not)."""

    name: str
    address: str
    user_agent: str
    block: str = ""


def client_of(mode: Mode, key: int, address: str, user_agent: str) -> Client:
    """Return who calls: the key, the address, or the address and the User-Agent.

    `address` is "" where there is none (a unix socket).
    """
    if mode == "key":
        return Client(f"key:{key}", address, user_agent)
    block = block_of(address)
    if mode == "ip":
        return Client(f"ip:{block}", address, user_agent)
    agent = hashlib.sha256(user_agent.encode("utf-8", "replace")).hexdigest()[:8]
    return Client(f"ip:{block}|{agent}", address, user_agent, block)


def block_of(address: str) -> str:
    """Return what addresses are counted by: themselves, of IPv6 the /64."""
    if ":" not in address:
        return address or UNKNOWN_ADDRESS
    return str(ipaddress.ip_network(f"{address}/64", strict=False))


class _UserId(msgspec.Struct):
    session_id: str = ""


def session_of(header: str | None, user_id: object) -> str | None:
    """Return the session id of a request, or None when it names none.

    `header` is `x-claude-code-session-id`, `user_id` the body's `metadata.user_id` (any JSON). An
    id of another shape than a short plain word counts as none.
    """
    if header is not None:
        return header if SHAPE.fullmatch(header) else None
    if not isinstance(user_id, str) or len(user_id) > 1024:
        return None
    old = OLD_USER_ID.fullmatch(user_id)
    session = old[1] if old else _from_json(user_id)
    return session if SHAPE.fullmatch(session) else None


def _from_json(text: str) -> str:
    try:
        return msgspec.json.decode(text, type=_UserId).session_id
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return ""
