"""Whether other processes wait for places at the same accounts: then nobody takes all of them."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Sequence

import redis

from lib.batch import batch

# Whoever waits says so several times in this time.
HEARD_MS = 400
NAME = f"{os.getpid()}-{secrets.token_hex(4)}"


async def met(accounts: Sequence[int], name: str = NAME) -> set[int]:
    """Say that this process waits for these accounts; return those for which another one does."""
    try:
        said = await asyncio.gather(*(_say(account, name) for account in accounts))
    except (redis.RedisError, OSError):
        return set()
    last = zip(accounts, said, strict=True)
    return {account for account, who in last if who not in (None, name)}


async def _say(account: int, name: str) -> str | None:
    """Return who said so last, lately."""
    key = f"quota:account:{account}:waiting"
    told = await batch().run("SET", key, name, "PX", HEARD_MS, "GET")
    return None if told is None else str(told)
