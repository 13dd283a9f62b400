"""What a newer view of the pool tells this process: who comes back gently, and who at once."""

from __future__ import annotations

from datetime import datetime

from accounts.pool import Pool
from accounts.states import Status, is_ahead
from relay.bench import bench
from relay.ramp import ramp

_view: Pool | None = None
_cleared: dict[int, datetime] = {}


def follow(view: Pool, now: datetime) -> None:
    """Learn from a view of the pool, once.

    An account that is rate-limited comes back by a slow start, whichever process has met its limit.
    What this process itself holds against an account ends when an operator clears it.
    """
    global _view
    if view is _view:
        return
    _view = view
    for member in view.members:
        if member.status is Status.RATE_LIMITED and is_ahead(member.limited_until, now):
            ramp.restart(member.id)
        if member.cleared_at is not None and _cleared.get(member.id) != member.cleared_at:
            _cleared[member.id] = member.cleared_at
            bench.clear(member.id)


def reset() -> None:
    """Forget everything (for tests)."""
    global _view
    _view = None
    _cleared.clear()
