"""The text of a relay key: made, told from anything else, and hashed."""

from __future__ import annotations

import re
import secrets

from lib.crypto import keyed_hash

PREFIX = "rk_"
BYTES = 32
SHAPE = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}", re.ASCII)


def make() -> str:
    """Return a new key."""
    return PREFIX + secrets.token_urlsafe(BYTES)


def is_key(text: str) -> bool:
    """Tell whether a text can be a key at all; nobody is asked about any other."""
    return SHAPE.fullmatch(text) is not None


def hash_of(text: str) -> str:
    """Return what is kept of a key, by which it is found."""
    return keyed_hash(text, "client key")


def hint_of(text: str) -> str:
    """Return the part of a key by which people tell it from others."""
    return text[-4:]
