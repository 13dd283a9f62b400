"""What a revocation is aimed at, by name: one session, or many at once; pure.

A session is aimed at by its own name ("key:7/0a1b…"). A wide target ends what it covers and what
began before it was made; it is kept for what nobody had heard of at that moment.
"""

from __future__ import annotations

from sessions_limit.identity import block_of

SESSION, ALL = "session", "all"


def of_key(key: int) -> str:
    """Return the target that covers the sessions of a key."""
    return f"key:{key}"


def of_address(address: str) -> str:
    """Return the target that covers the sessions of an address, of IPv6 those of its /64."""
    return f"address:{block_of(address)}"


def covering(key: int, address: str) -> tuple[str, ...]:
    """Return the wide targets that a session falls under."""
    return ALL, of_key(key), of_address(address)
