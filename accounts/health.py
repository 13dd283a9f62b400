"""What the data plane learnt about an account's health, written at once; blocking (ORM).

Every function re-reads the row, tries one compare-and-swap, decides again once if it lost the race,
and then leaves it: whoever won knew more.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

from accounts.models import POOL, Account
from accounts.states import Status, Trigger
from events import journal
from lib import bus

LATE = timedelta(seconds=5)
PROBE_EVERY = timedelta(hours=1)
# The reset of one window is told a little differently by each answer.
JITTER = timedelta(minutes=2)


def limit(
    account: int,
    until: datetime,
    reason: str,
    *,
    observed_at: datetime,
    probes: bool = True,
    by: str = "relay",
    **evidence: Any,
) -> bool:
    """Bench an account until `until` because an answer said so (S03, S04); False: not moved.

    An `inactive` or `invalid` account only gets the fact (S15, S16). An answer older than the
    account's present state says nothing about it. `probes`: a request may find out early that the
    limit is over; it cannot where the account was set aside by choice, with its window still open.
    """

    def move(row: Account) -> bool:
        if row.status in (Status.INACTIVE, Status.INVALID):
            later = Greatest(Coalesce(F("limited_until"), until), until)
            Account.objects.filter(pk=row.pk, status=row.status).update(limited_until=later)
            return False
        guard = Q(status_changed_at__lt=observed_at + LATE)
        # Changed in the future: the clock was set back, and says nothing about which came first.
        guard |= Q(status_changed_at__gt=timezone.now() + LATE)
        limited = Account.objects.filter(pk=row.pk, status=Status.RATE_LIMITED)
        # The same limit seen again: what proves it over must be newer than this.
        earlier = Q(limit_observed_at=None) | Q(limit_observed_at__lt=observed_at)
        if not probes and row.status == Status.RATE_LIMITED and _is_same(row.limited_until, until):
            limited.filter(earlier).update(limit_observed_at=observed_at)
            if limited.exclude(probe_at=None).update(probe_at=None):
                bus.changed(POOL)
            return False
        with transaction.atomic():
            moved = row.apply(
                Trigger.LIMIT,
                by=by,
                reason=reason,
                limited_until=until,
                guard=guard,
                **evidence,
            )
            if moved:
                limited.update(probe_at=observed_at + PROBE_EVERY if probes else None)
            limited.filter(earlier).update(limit_observed_at=observed_at)
        return moved

    return _decide(account, move)


def refuse(
    account: int, reason: str, *, credential: UUID | None, by: str = "relay", **evidence: Any
) -> bool:
    """Mark an account `invalid` because its credential was rejected for good (S06).

    `credential` is the generation that was rejected: if the account has a newer one by now, nothing
    happens. None means that the account itself was refused, whatever its credential.
    """

    def move(row: Account) -> bool:
        guard = Q(credential_id=credential) if credential else Q()
        return row.apply(Trigger.REJECT, by=by, reason=reason, guard=guard, **evidence)

    return _decide(account, move)


def cool_down(account: int, until: datetime, reason: str) -> None:
    """Keep an account out of the pool until `until` without a change of state."""
    now = timezone.now()
    moved = (
        Account.objects.filter(pk=account, deleted_at=None)
        .filter(Q(cooldown_until=None) | Q(cooldown_until__lt=until))
        .update(cooldown_until=until)
    )
    if moved:
        seconds = round((until - now).total_seconds(), 1)
        journal.record(
            "account.cooldown", f"account:{account}", by="relay", reason=reason, seconds=seconds
        )
        bus.changed(POOL)


def rested(account: int, seconds: float) -> None:
    """Say that one process leaves an account alone for a while: it failed where others did not.

    The other processes judge for themselves.
    """
    journal.record("account.rested", f"account:{account}", by="relay", seconds=seconds)


def recover(account: int, *, by: str, now: datetime | None = None) -> bool:
    """Return an account whose limit has passed to `active` (S05)."""
    now = now or timezone.now()

    def move(row: Account) -> bool:
        return row.apply(Trigger.RECOVER, by=by, guard=Q(limited_until__lte=now), now=now)

    return _decide(account, move)


def claim_probe(account: int, *, now: datetime) -> bool:
    """Claim the one probe of an hour, over all processes: may this request try a spent account?

    A limit is sometimes lifted before its reset (a new plan, a grace); only trying tells.
    """
    won = Account.objects.filter(
        pk=account, status=Status.RATE_LIMITED, probe_at__lte=now, deleted_at=None
    ).update(probe_at=now + PROBE_EVERY)
    if won:
        bus.changed(POOL)
    return bool(won)


def reopen(account: int, *, limited_until: datetime | None, **evidence: Any) -> bool:
    """Return a `rate_limited` account to `active` because a probe proved its limit over (S05b).

    `limited_until` is the limit that the probe was sent against: it says nothing of a later one.
    """

    def move(row: Account) -> bool:
        guard = Q(limited_until=limited_until)
        return row.apply(Trigger.RECOVER, by="probe", guard=guard, **evidence)

    return _decide(account, move)


def proved_open(
    account: int,
    observed_at: datetime,
    *,
    limited_until: datetime | None,
    reason: str,
    by: str = "usage",
    **evidence: Any,
) -> bool:
    """Return a `rate_limited` account to `active`: its windows were seen open (S05b).

    `limited_until` and `reason` are the limit that this disproves: it says nothing of a later one.
    """

    def move(row: Account) -> bool:
        guard = _newer(observed_at) & Q(limited_until=limited_until, reason=reason)
        return row.apply(Trigger.RECOVER, by=by, guard=guard, now=observed_at, **evidence)

    return _decide(account, move)


def end_earlier(
    account: int,
    until: datetime,
    observed_at: datetime,
    *,
    limited_until: datetime | None,
    reason: str,
    because: str = "",
    probes: bool = True,
    by: str = "usage",
    **evidence: Any,
) -> bool:
    """Bring the end of a limit forward to its windows' own reset, seen later than it (S05b).

    `because`: it is over, but stood before another one, which goes on; `probes` as of `limit`.
    """
    rows = Account.objects.filter(
        _newer(observed_at),
        pk=account,
        status=Status.RATE_LIMITED,
        limited_until=limited_until,
        reason=reason,
        deleted_at=None,
    )
    with transaction.atomic():
        unprobed = {} if probes else {"probe_at": None}
        won = rows.update(
            limited_until=until,
            reason=because or reason,
            state_version=F("state_version") + 1,
            **unprobed,
        )
        if won:
            journal.record(
                "account.limit_shortened",
                f"account:{account}",
                by=by,
                reason=because or reason,
                limited_until=until.isoformat(),
                **evidence,
            )
            bus.changed(POOL)
    return bool(won)


def wake(account: int, *, dead: str = "") -> bool:
    """Return an account that was set aside as idle because a request has no other (S10).

    With `dead`, why its login is, it becomes `invalid` instead. False: it was not idle any more.
    """

    def move(row: Account) -> bool:
        with transaction.atomic():
            moved = row.apply(Trigger.WAKE, by="request", guard=Q(reason="idle"))
            if moved and dead:
                row.apply(Trigger.REJECT, by="request", reason=dead)
        return moved

    return _decide(account, move)


def _newer(observed_at: datetime) -> Q:
    """What was seen at this time is newer than the limit that stands."""
    return Q(limit_observed_at__lt=observed_at) | Q(
        limit_observed_at=None, status_changed_at__lt=observed_at
    )


def _is_same(known: datetime | None, until: datetime) -> bool:
    return known is not None and abs(until - known) < JITTER


def _decide(account: int, move: Callable[[Account], bool]) -> bool:
    for _ in range(2):
        row = Account.objects.filter(pk=account, deleted_at=None).first()
        if row is None:
            return False
        if move(row):
            return True
    return False
