"""Requests and tokens a minute of a key, counted for all processes; see docs/clients.md."""

from __future__ import annotations

import asyncio
import math

from lib import ledger
from lib.ledger import Allowance
from sessions_limit.errors import RateLimited
from sessions_limit.keys import Key

_telling: set[asyncio.Task[None]] = set()


async def admit(key: Key, id: str, now: float | None = None) -> None:
    """Count a request of a key in; raise RateLimited with the seconds until there is room again.

    A key without such limits costs nothing, one that has them one call to Redis. `now` is the time
    in seconds, by the clock of Redis unless told.
    """
    if key.requests_per_minute is None and key.tokens_per_minute is None:
        return
    allowed = Allowance(requests=key.requests_per_minute, tokens=key.tokens_per_minute)
    wait = await ledger.enter(_name(key), allowed, id, now)
    if wait is not None:
        most = key.tokens_per_minute if wait.lacking == "tokens" else key.requests_per_minute
        raise RateLimited(wait.seconds, _say(most or 0, wait))


def spent(key: Key, tokens: int, now: float | None = None) -> None:
    """Count what a request used, without holding anybody up."""
    if key.tokens_per_minute is None or tokens <= 0:
        return
    work = ledger.leave(_name(key), "", tokens, now)
    task = asyncio.get_running_loop().create_task(work)
    _telling.add(task)
    task.add_done_callback(_telling.discard)


async def settled() -> None:
    """Wait until all that requests of this loop used is counted."""
    loop = asyncio.get_running_loop()
    if ours := [task for task in _telling if task.get_loop() is loop]:
        await asyncio.wait(ours)


def _name(key: Key) -> str:
    return f"key:{key.id}"


def _say(most: int, wait: ledger.Wait) -> str:
    allowed = f"{most:,} {wait.lacking[:-1] if most == 1 else wait.lacking} a minute"
    left = math.ceil(wait.seconds)
    return f"This key has used up its {allowed}; the next request is possible in {left} s."
