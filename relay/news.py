"""What a newer view of the pool tells this process: who comes back gently, and who at once."""

from __future__ import annotations

from datetime import datetime

from accounts.pool import Pool
from accounts.states import Status, is_ahead
from relay.bench import bench
from relay.ramp import ramp

_view: Pool | None = None
_usable: frozenset[int] | None = None
_cleared: dict[int, datetime] = {}


def follow(view: Pool, now: datetime) -> None:
    """Learn from a view of the pool, once.

    An account that is rate-limited comes back by a slow start, whichever process has met its limit,
    and so does one that was linked, enabled or healed; when one falls out, the others are eased
    into what it had. What this process itself holds against an account ends when an operator clears
    it.
    """
    global _view
    if view is _view:
        return
    _view = view
    _compare(frozenset(member.id for member in view.members if member.is_usable(now)))
    for member in view.members:
        if member.status is Status.RATE_LIMITED and is_ahead(member.limited_until, now):
            ramp.restart(member.id)
        if member.cleared_at is not None and _cleared.get(member.id) != member.cleared_at:
            _cleared[member.id] = member.cleared_at
            bench.clear(member.id)


def _compare(usable: frozenset[int]) -> None:
    """Notice who came back and who fell out; at first all are as they should be."""
    global _usable
    before, _usable = _usable, usable
    if before is None:
        return
    for account in usable - before:
        ramp.begin(account)
    if before - usable:
        for account in usable & before:
            ramp.ease(account)


def reset() -> None:
    """Forget everything (for tests)."""
    global _view, _usable
    _view = _usable = None
    _cleared.clear()
