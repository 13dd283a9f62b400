"""The requests that run in this process: they end with their key, session, or a cut account."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from django.db import Error as DatabaseError
from django.utils import timezone

from accounts import facts, pool
from accounts.models import POOL
from accounts.states import CUT, Status
from lib import bus, counters
from lib.snapshot import FRESH
from relay.trail import Ended, Trail
from sessions_limit import bans, keys
from sessions_limit.bans import Suspect

End = asyncio.Future[Ended]
USE_SECONDS = 30.0
log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Running:
    """One request; `end` is done, with the reason, as soon as it may not go on."""

    key: int
    trail: Trail
    end: End
    suspect: Suspect | None


_running: set[Running] = set()
_checks: set[asyncio.Task[None]] = set()
# Something has changed since the check that runs has looked.
_is_due = False
# When this process last heard of a change; epoch seconds, as those of a trail.
_changed_at = 0.0
_used: dict[int, float] = {}
_in_flight = counters.level("requests_in_flight")


@contextlib.contextmanager
def watched(key: int, trail: Trail, session: Suspect | None = None) -> Iterator[End]:
    """Yield what is done as soon as key or session are revoked, or the account asked is cut."""
    if session is not None and session.since is None:
        session = replace(session, since=trail.started_at)
    running = Running(key, trail, asyncio.get_running_loop().create_future(), session)
    _running.add(running)
    _in_flight.value += 1
    if trail.started_at <= _changed_at:
        # Nobody looked after it then: it was on its way in.
        check()
    try:
        yield running.end
    finally:
        _running.discard(running)
        _in_flight.value -= 1
        running.end.cancel()


def check() -> None:
    """Look in the background whether what runs here may go on.

    Called when a key or the pool has changed, and now and then by what runs, as such a hint may be
    lost.
    """
    global _is_due
    if _checks:
        _is_due = True
    elif _running:
        task = asyncio.get_running_loop().create_task(_check())
        _checks.add(task)
        task.add_done_callback(_checks.discard)


async def _check() -> None:
    global _is_due
    _is_due = True
    while _is_due:
        _is_due = False
        # What begins meanwhile was let in by a newer look than this one.
        asked = list(_running)
        _note_use({running.trail.asking for running in asked} - {None})
        try:
            await _end_revoked(asked)
            await _end_banned(asked)
            await _end_cut(asked)
        except DatabaseError as error:
            log.warning("check what runs: %s", type(error).__name__)


async def _end_revoked(asked: Collection[Running]) -> None:
    still_open = await keys.still_open({running.key for running in asked})
    _end((running for running in asked if running.key not in still_open), Ended.REVOKED)


async def _end_banned(asked: Collection[Running]) -> None:
    banned = await bans.snapshot.get(max_age=FRESH)
    now = timezone.now()
    suspects = ((one, one.suspect) for one in asked if one.suspect)
    revoked = (one for one, suspect in suspects if bans.banned_until(banned, suspect, now))
    _end(revoked, Ended.SESSION_REVOKED)


async def _end_cut(asked: Collection[Running]) -> None:
    view = await pool.snapshot.get(max_age=FRESH)
    cut = {m.id for m in view.members if m.status is Status.INACTIVE and m.reason == CUT}
    _end((running for running in asked if running.trail.asking in cut), Ended.DISABLED)


def _end(which: Iterator[Running], why: Ended) -> None:
    for running in which:
        if not running.end.done():
            running.end.set_result(why)


def _note_use(accounts: Collection[int | None]) -> None:
    """Keep an account from being taken as idle while a long answer is under way (S07)."""
    now = asyncio.get_running_loop().time()
    for gone in _used.keys() - set(accounts):
        del _used[gone]
    for account in accounts:
        if account is not None and now - _used.setdefault(account, now) >= USE_SECONDS:
            _used[account] = now
            facts.note(account, timezone.now())


def _on_change() -> None:
    """Hear of a change in whatever thread it is told."""
    global _changed_at
    _changed_at = time.time()
    for loop in {running.end.get_loop() for running in list(_running)}:
        _call_soon(loop)


def _call_soon(loop: Any) -> None:
    # A loop that has just closed has nothing running any more.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(check)


bus.on(keys.KEYS, _on_change)
bus.on(bans.BANS, _on_change)
bus.on(POOL, _on_change)
