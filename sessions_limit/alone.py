"""Whether this process decides on sessions alone, and how, while Redis is away."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import redis
from django.conf import settings
from django.db import Error as DatabaseError
from django.utils import timezone

from events import conditions
from lib import counters, db
from lib.batch import batch
from sessions_limit import limiter
from sessions_limit.errors import Undecided
from sessions_limit.limiter import Scope
from sessions_limit.scopes import ANY, full

DEGRADED, RESTORED, SUBJECT = "limiter.degraded", "limiter.restored", "relay"
# Redis must have answered for so long before the journal says so: the other processes, which may
# not have heard of it yet, would announce the same trouble a second time.
CALM = 3.0
NOBODY = "?"
LEVEL, SECONDS = "limiter_degraded", "limiter_degraded_seconds"
Left = Callable[[Scope], Sequence[float]]
log = logging.getLogger(__name__)

_degraded = counters.level(LEVEL)


@dataclass(slots=True)
class _State:
    """How Redis answered last, among how many web processes limits are shared, and what those told.

    `elsewhere` are sessions that others have open, by name: since when, and when that was heard.
    `is_told` is what the journal knows; None: what an earlier process left there.
    """

    processes: int = field(default_factory=lambda: os.cpu_count() or 1)
    elsewhere: dict[str, tuple[float, float]] = field(default_factory=dict)
    is_alone: bool = False
    failed_at: float = float("-inf")
    looked_at: float = float("-inf")
    is_told: bool | None = None
    telling: asyncio.Task[None] | None = None


state = _State()


def failed(error: Exception) -> None:
    """Note that Redis did not answer: this process decides alone."""
    state.failed_at = time.monotonic()
    if not state.is_alone:
        log.warning("count sessions: %s; this process decides alone", type(error).__name__)
        state.is_alone, state.looked_at = True, state.failed_at
        _degraded.value = 1


def answered() -> None:
    """Note that Redis did."""
    if state.is_alone:
        log.warning("count sessions: together again")
        state.is_alone, _degraded.value = False, 0


def hear(processes: int, told: Mapping[str, float]) -> None:
    """Note how many web processes there are, and since when sessions are open in the others."""
    now = time.monotonic()
    state.processes = processes
    state.elsewhere |= {name: (since, now) for name, since in told.items()}
    for name in [n for n in state.elsewhere if open_elsewhere(n) is None]:
        del state.elsewhere[name]


def open_elsewhere(name: str) -> float | None:
    """Return since when a session is open in another process, as far as this one has heard."""
    since, heard_at = state.elsewhere.get(name, (0.0, float("-inf")))
    is_idle = time.monotonic() - heard_at >= settings.CONFIG.session_idle_seconds
    is_old = time.time() - since >= settings.CONFIG.session_max_seconds
    return None if is_idle or is_old else since


def decide(scopes: Iterable[Scope], left: Left, idle: float) -> None:
    """Let this process admit a new session to its part of the limits; raise Full or Undecided.

    `left` tells how many seconds each session has left that it knows of in a scope, and `idle` how
    many a new one would have.
    """
    mode = settings.CONFIG.session_fail_mode
    limited = [scope for scope in scopes if scope.most != ANY]
    # To know that there may be none, nobody has to count.
    if mode == "closed" and limited and all(scope.most for scope in limited):
        raise Undecided
    waits = []
    for scope in limited:
        if mode == "open" and scope.most:
            continue
        most, seconds = math.ceil(scope.most / state.processes), sorted(left(scope), reverse=True)
        if len(seconds) >= most:
            waits.append((seconds[most - 1] if most else idle, scope))
    if waits:
        wait, scope = max(waits, key=itemgetter(0))
        raise full(scope, wait)


async def look() -> bool:
    """Ask a Redis that was away, so that nobody has to wait for it; return True if it is back."""
    now = time.monotonic()
    was_alone = state.is_alone
    if not (was_alone or batch().is_failing):
        return False
    if was_alone:
        counters.add(SECONDS, by=now - state.looked_at)
        state.looked_at = now
    try:
        # By what is needed of it: one that answers and runs no script is of no use.
        await limiter.end(NOBODY)
    except (redis.RedisError, OSError) as error:
        failed(error)
        return False
    answered()
    return was_alone


def tell() -> None:
    """Tell the journal what it does not know; in the background, as the database may hang."""
    loop, telling = asyncio.get_running_loop(), state.telling
    if telling is not None and not telling.done() and telling.get_loop() is loop:
        return
    is_calm = time.monotonic() - state.failed_at >= CALM
    if state.is_alone is not state.is_told and (state.is_alone or is_calm):
        state.telling = loop.create_task(_tell(state.is_alone))


async def settled() -> None:
    """Wait no longer for the journal (at the end of a loop)."""
    telling, state.telling = state.telling, None
    if telling is not None and telling.get_loop() is asyncio.get_running_loop():
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


def reset() -> None:
    """Forget everything (for tests)."""
    state.is_alone, state.is_told, state.failed_at = False, None, float("-inf")
    state.elsewhere.clear()
    _degraded.value = 0


async def _tell(is_alone: bool) -> None:
    try:
        await db.in_thread(_write, is_alone)
    except DatabaseError as error:
        log.warning("tell the journal: %s", type(error).__name__)
    else:
        state.is_told = is_alone


def _write(is_alone: bool) -> None:
    """Write it unless another process has: however many notice, it is one condition."""
    if is_alone:
        conditions.begin(DEGRADED, SUBJECT, now=timezone.now())
    elif conditions.holds(DEGRADED, SUBJECT):
        conditions.end(DEGRADED, SUBJECT, event=RESTORED)
