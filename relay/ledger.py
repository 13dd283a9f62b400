"""What accounts with limits have in flight and had in the last minute, counted in Redis."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from accounts.pool import Member
from lib.batch import batch
from relay.minutes import Count, Minutes
from relay.ramp import ramp

# What a process that was killed has in flight is free again after this.
LEASE_SECONDS = 50
SCRIPT = (Path(__file__).parent / "quota.lua").read_text(encoding="ascii")
DIGEST = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
log = logging.getLogger(__name__)

# What was counted while Redis was away.
_alone = Minutes()


async def enter(member: Member, id: str, now: float | None = None) -> float | None:
    """Count a request in and return None; else the seconds it has to wait.

    These are 0.0 if too much is in flight, which may end at any moment. `now` is the time in
    seconds; without it the clock of Redis counts, which is the same for all processes.
    """
    limits = member.max_in_flight, member.requests_per_minute, member.tokens_per_minute
    try:
        told = await _run("admit", member.id, now, id, *("" if x is None else x for x in limits))
    except (redis.RedisError, OSError) as error:
        log.warning("count for account:%d: %s; counted alone", member.id, type(error).__name__)
        return _enter_alone(member)
    if told[0] != "rate":
        return None if told[0] == "in" else 0.0
    elapsed, *counts = map(float, told[1:])
    requests = Count(counts[0], counts[1], elapsed)
    return _wait(member, requests, Count(counts[2], counts[3], elapsed))


async def leave(account: int, id: str, tokens: int, now: float | None = None) -> None:
    """Count a request out, and what it used."""
    try:
        await _run("leave", account, now, id, tokens)
    except (redis.RedisError, OSError) as error:
        log.warning("count for account:%d: %s; counted alone", account, type(error).__name__)
        _alone.add(f"tokens:{account}", tokens, time.monotonic())


async def renew(account: int, ids: Sequence[str], now: float | None = None) -> None:
    """Tell that these are in flight still; what an emptied Redis has forgotten it is told again."""
    try:
        await _run("renew", account, now, *ids)
    except (redis.RedisError, OSError) as error:
        log.warning("renew places at account:%d: %s", account, type(error).__name__)


def reset() -> None:
    """Forget what this process has counted (for tests)."""
    _alone.reset()


def _enter_alone(member: Member) -> float | None:
    """Decide by what this process knows; that Redis is away is nobody's fault."""
    now = time.monotonic()
    requests = _alone.count(f"requests:{member.id}", now)
    if seconds := _wait(member, requests, _alone.count(f"tokens:{member.id}", now)):
        return seconds
    if ramp.is_full(member.id, member.max_in_flight):
        return 0.0
    _alone.add(f"requests:{member.id}", 1, now)
    return None


def _wait(member: Member, requests: Count, tokens: Count) -> float:
    by_requests = requests.wait(member.requests_per_minute)
    return max(by_requests, tokens.wait(member.tokens_per_minute))


async def _run(verb: str, account: int, now: float | None, *args: Any) -> Any:
    names = f"quota:{account}:in_flight", f"quota:{account}:minutes"
    given = (2, *names, verb, "" if now is None else now, LEASE_SECONDS, *args)
    try:
        return await batch().run("EVALSHA", DIGEST, *given)
    except redis.exceptions.NoScriptError:
        return await batch().run("EVAL", SCRIPT, *given)
