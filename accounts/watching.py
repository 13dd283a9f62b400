"""The pool as a whole: announces that nothing is usable or much is broken, and the end of it."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from django.conf import settings
from django.utils import timezone

from accounts import pool
from accounts.models import POOL, Account
from accounts.pool import Member
from accounts.states import Status, is_ahead
from events import conditions
from events.models import Condition

EXHAUSTED, RECOVERED = "pool.exhausted", "pool.recovered"
DEGRADED, HEALED = "pool.degraded", "pool.healed"


def watch_pool(now: datetime | None = None) -> None:
    """Note whether any account is usable, and whether half or more are invalid."""
    now = now or timezone.now()
    statuses = Account.objects.filter(deleted_at=None).values_list("status", flat=True)
    counts = Counter(statuses)
    # Also an account whose secret does not open is an account, but no member that could serve.
    members = pool.load().members
    if counts and not any(serves(member, now) for member in members):
        returns = (member.returns_at(now) for member in members)
        first = min((time for time in returns if time is not None), default=None)
        conditions.begin(
            EXHAUSTED,
            POOL,
            now=now,
            returns_at=first and first.isoformat(),
            counts=dict(sorted(counts.items())),
        )
    else:
        _end(EXHAUSTED, RECOVERED if counts else "", now)
    invalid, total = counts[Status.INVALID], counts.total()
    if invalid and invalid * 2 >= total:
        conditions.begin(DEGRADED, POOL, now=now, invalid=invalid, total=total)
    else:
        _end(DEGRADED, HEALED if counts else "", now)


def serves(member: Member, now: datetime) -> bool:
    """Tell whether a request would find this account, or wake it."""
    return member.is_usable(now) or would_wake(member, now)


def would_wake(account: Member | Account, now: datetime) -> bool:
    """Tell whether a request that finds no other account would wake this one."""
    if not settings.CONFIG.wake_idle or account.reason != "idle":
        return False
    return not (is_ahead(account.limited_until, now) or is_ahead(account.cooldown_until, now))


def _end(kind: str, event: str, now: datetime) -> None:
    """End a condition if it holds; an emptied pool ends it without a word."""
    row = Condition.objects.filter(kind=kind, subject=POOL).first()
    if row is not None:
        minutes = max(round((now - row.since).total_seconds() / 60), 0)
        conditions.end(kind, POOL, event=event, minutes=minutes)
