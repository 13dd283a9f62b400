"""Asking idle accounts for their usage: what no answer has told for a while, and rarely."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from accounts import evidence, facts, health, usage_endpoint, waits
from accounts.models import Account, LimitWindow
from accounts.states import Kind, Status
from accounts.usage_endpoint import UsageAbsent, UsageUnreadable
from events import journal
from lib import counters
from lib.crypto import DecryptError
from lib.db import in_thread
from providers.base import Window

BEAT = timedelta(minutes=1)
# Such a login will hardly learn to tell: its owner would have to link it again.
ABSENT_PAUSE = timedelta(hours=24)
LONGEST_RETRY_AFTER = 86_400.0
AT_ONCE = 4
# So the API answers everybody whose organisation is disabled.
MAYBE_DISABLED = 400
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """An account that is to be asked at `at` by this process and by no other."""

    account: int
    at: datetime
    failures: int
    secret: str = field(repr=False)
    proxy: str = field(repr=False)


async def poll_usage(now: datetime | None = None) -> int:
    """Ask the accounts whose turn it is; return how many told their usage.

    To be called each minute. An account is asked at most every USAGE_POLL_MINUTES, and not at all
    while the answers it gives tell the same; only so many at a time that they spread evenly.
    """
    now = now or timezone.now()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(account: int, seen: datetime | None) -> bool:
        async with gate:
            turn = await in_thread(_claim, account, seen, now)
            return turn is not None and await _poll(turn)

    due = await in_thread(_due, now)
    ended = await asyncio.gather(*(one(*place) for place in due), return_exceptions=True)
    for (account, _), end in zip(due, ended, strict=True):
        if isinstance(end, BaseException):
            log.error("poll usage of account:%d: %s", account, type(end).__name__, exc_info=end)
    return sum(end is True for end in ended)


def _due(now: datetime) -> list[tuple[int, datetime | None]]:
    every = _every()
    # What is said to lie further ahead than any of this was written before the clock was set back.
    told = LimitWindow.objects.filter(
        account=OuterRef("pk"), observed_at__gt=now - every, observed_at__lte=now + every
    )
    accounts = Account.objects.filter(
        Q(credential__expires_at=None) | Q(credential__expires_at__gt=now),
        kind=Kind.OAUTH,
        status__in=(Status.ACTIVE, Status.RATE_LIMITED),
        deleted_at=None,
        credential__isnull=False,
    )
    rows = accounts.filter(
        ~Exists(told),
        Q(usage_checked_at=None)
        | Q(usage_checked_at__lte=now - every)
        | Q(usage_checked_at__gt=now + every),
        Q(usage_not_before=None)
        | Q(usage_not_before__lte=now)
        | Q(usage_not_before__gt=now + max(every, ABSENT_PAUSE)),
    ).order_by(F("usage_checked_at").asc(nulls_first=True), "pk")
    share = math.ceil(accounts.count() * (BEAT / every))
    return list(rows.values_list("pk", "usage_checked_at")[:share])


def _claim(account: int, seen: datetime | None, now: datetime) -> Turn | None:
    """Take the turn of an account, unless somebody else just did."""
    won = Account.objects.filter(pk=account, usage_checked_at=seen, deleted_at=None).update(
        usage_checked_at=now
    )
    if not won:
        return None
    row = Account.objects.select_related("credential", "egress").get(pk=account)
    if row.credential is None:
        return None
    try:
        secret = row.credential.access_token
        proxy = row.egress.url if hasattr(row, "egress") else ""
    except DecryptError as error:
        log.error("poll usage of %s: %s", row.subject, error)
        return None
    return Turn(account, now, row.usage_failures, secret, proxy)


async def _poll(turn: Turn) -> bool:
    try:
        windows = await usage_endpoint.read(turn.secret, turn.at, proxy=turn.proxy)
    except UsageUnreadable as error:
        await in_thread(_later, turn, error)
        return False
    await in_thread(_learn, turn, windows)
    return True


def _later(turn: Turn, error: UsageUnreadable) -> None:
    """Note when to ask again; say so at the first failure in a row and each time it doubles."""
    if isinstance(error, UsageAbsent):
        _note(turn, failures=0, until=turn.at + ABSENT_PAUSE)
        counters.add("job_calls", "usage_poll", "failed")
        return
    failures = turn.failures + 1
    asked = min(error.retry_after, LONGEST_RETRY_AFTER)
    wait = waits.policy(error.status).wait(failures, at_least=asked)
    wait = max(wait, _every().total_seconds())
    noted = _note(turn, failures=failures, until=turn.at + timedelta(seconds=wait))
    if error.status == MAYBE_DISABLED and failures == 1:
        # The profile tells, and is due now.
        Account.objects.filter(pk=turn.account).update(profile_checked_at=None)
    counters.add("job_calls", "usage_poll", "later")
    counters.add("backoff_seconds", "usage_poll", by=wait)
    if noted and failures & (failures - 1) == 0:
        journal.record(
            "account.poll_failed",
            f"account:{turn.account}",
            by="job",
            why=str(error),
            attempt=failures,
            seconds=round(wait),
        )


def _learn(turn: Turn, windows: tuple[Window, ...]) -> None:
    _note(turn, failures=0, until=None)
    counters.add("job_calls", "usage_poll", "succeeded")
    facts.write([facts.row(turn.account, turn.at, windows, used=False)], now=turn.at)
    row = Account.objects.filter(pk=turn.account, deleted_at=None).first()
    if row is not None:
        _conclude(row, windows, turn.at)


def _conclude(row: Account, windows: tuple[Window, ...], at: datetime) -> None:
    """Move an account on what its usage proves; the guards of the verbs settle every race."""
    leave_at = None if row.leave_at_percent is None else row.leave_at_percent / 100
    shut = evidence.closed(windows, at, leave_at=leave_at, never_overage=row.never_overage)
    told: dict[str, Any] = {f"used_{window.name}": window.utilization for window in windows}
    if row.status == Status.ACTIVE:
        if shut is not None:
            _bench(row, shut, at, told)
        return
    until = row.limited_until
    if row.status != Status.RATE_LIMITED or until is None or until <= at:
        return
    held: dict[str, Any] = {"limited_until": until, "reason": row.reason}
    if not evidence.is_over(row.reason, windows, leave_at=leave_at):
        if end := evidence.earlier_end(row.reason, windows, until, leave_at=leave_at):
            health.end_earlier(row.pk, end, at, **held, **told)
    elif shut is None:
        health.proved_open(row.pk, at, **held, **told)
    elif shut.until > until:
        _bench(row, shut, at, told)
    else:
        # Another window holds, and ends before the one that is open again would have.
        held |= {"because": shut.reason, "probes": shut.is_spent}
        health.end_earlier(row.pk, shut.until, at, **held, **told)


def _bench(row: Account, shut: evidence.Closed, at: datetime, told: dict[str, Any]) -> None:
    told |= {"observed_at": at, "probes": shut.is_spent, "by": "usage"}
    health.limit(row.pk, shut.until, shut.reason, **told)


def _note(turn: Turn, *, failures: int, until: datetime | None) -> bool:
    """Store what came of a turn; a later one has its own word."""
    rows = Account.objects.filter(pk=turn.account, usage_checked_at=turn.at)
    return bool(rows.update(usage_failures=failures, usage_not_before=until))


def _every() -> timedelta:
    return timedelta(minutes=settings.CONFIG.usage_poll_minutes)
