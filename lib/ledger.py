"""What a name has in flight and had in the last minute, counted in Redis for all processes."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import redis

from lib.batch import batch
from lib.minutes import Count, Minutes

# What a process that was killed has in flight is free again after this.
LEASE_SECONDS = 50
SCRIPT = (Path(__file__).parent / "ledger.lua").read_text(encoding="ascii")
DIGEST = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
log = logging.getLogger(__name__)

# What was counted while Redis was away.
_alone = Minutes()


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a name may have at once and in a minute; None: as much as it likes."""

    in_flight: int | None = None
    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """There is no room: for `seconds`, or (0.0) until something that is in flight is over."""

    seconds: float
    lacking: Literal["in_flight", "requests", "tokens"]


async def enter(
    name: str, allowed: Allowance, id: str, now: float | None = None, *, here: int = 0
) -> Wait | None:
    """Count a request of a name ("account:7") in and return None; else how long it has to wait.

    `now` is the time in seconds; without it the clock of Redis counts, which is the same for all
    processes. `here` is what the name has in flight in this process, for when Redis is away.
    """
    limits = allowed.in_flight, allowed.requests, allowed.tokens
    try:
        told = await _run("admit", name, now, id, *("" if x is None else x for x in limits))
    except (redis.RedisError, OSError) as error:
        log.warning("count for %s: %s; counted alone", name, type(error).__name__)
        return _enter_alone(name, allowed, here)
    if told[0] != "rate":
        return None if told[0] == "in" else Wait(0.0, "in_flight")
    elapsed, *counts = map(float, told[1:])
    requests = Count(counts[0], counts[1], elapsed)
    return _wait(allowed, requests, Count(counts[2], counts[3], elapsed))


async def leave(name: str, id: str, tokens: int, now: float | None = None) -> None:
    """Count a request out ("" if it held no place), and what it used."""
    try:
        await _run("leave", name, now, id, tokens)
    except (redis.RedisError, OSError) as error:
        log.warning("count for %s: %s; counted alone", name, type(error).__name__)
        _alone.add(f"tokens:{name}", tokens, time.monotonic())


async def renew(name: str, ids: Sequence[str], now: float | None = None) -> None:
    """Tell that these are in flight still; what an emptied Redis has forgotten it is told again."""
    try:
        await _run("renew", name, now, *ids)
    except (redis.RedisError, OSError) as error:
        log.warning("renew places of %s: %s", name, type(error).__name__)


def reset() -> None:
    """Forget what this process has counted (for tests)."""
    _alone.reset()


def _enter_alone(name: str, allowed: Allowance, here: int) -> Wait | None:
    """Decide by what this process knows; that Redis is away is nobody's fault."""
    now = time.monotonic()
    requests, tokens = (_alone.count(f"{what}:{name}", now) for what in ("requests", "tokens"))
    wait = _wait(allowed, requests, tokens)
    if wait.seconds:
        return wait
    if allowed.in_flight is not None and here >= allowed.in_flight:
        return Wait(0.0, "in_flight")
    _alone.add(f"requests:{name}", 1, now)
    return None


def _wait(allowed: Allowance, requests: Count, tokens: Count) -> Wait:
    by_requests, by_tokens = requests.wait(allowed.requests), tokens.wait(allowed.tokens)
    if by_tokens > by_requests:
        return Wait(by_tokens, "tokens")
    return Wait(by_requests, "requests")


async def _run(verb: str, name: str, now: float | None, *args: Any) -> Any:
    names = f"quota:{name}:in_flight", f"quota:{name}:minutes"
    given = (2, *names, verb, "" if now is None else now, LEASE_SECONDS, *args)
    try:
        return await batch().run("EVALSHA", DIGEST, *given)
    except redis.exceptions.NoScriptError:
        return await batch().run("EVAL", SCRIPT, *given)
