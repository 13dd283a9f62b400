"""What an answer tells of an account's reserve: whether it leaves the pool, or comes last."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone

from accounts import reserve
from accounts.pool import Member
from accounts.states import Status
from providers.base import Limits
from relay import effects
from relay.bench import FAMILY, bench
from relay.facts import Facts
from relay.verdicts import Row

# A limit per minute is filled little by little; its reset is when it will be full.
LONGEST_DEFERRAL = timedelta(seconds=60)
# Resets are told a little differently each time.
JITTER = timedelta(minutes=2)


def watch(
    member: Member, limits: Limits, model: str, now: datetime, *, refused: bool = False
) -> None:
    """Draw the conclusions from one answer to a request for `model`; no answer waits for it."""
    _defer(member, limits, model, now)
    kept = reserve.withheld(
        limits.windows,
        leave_at=member.leave_at,
        never_overage=member.never_overage,
        overage_in_use=limits.overage_in_use,
        now=now,
    )
    for window, until in kept.items():
        if family := _family(window, model):
            bench.hold(member.id, until, family)
    left = leaves(member, limits, now, refused=refused)
    if left is not None and not _is_out(member, left[0], now):
        effects.leave(member, *left, now)


def leaves(
    member: Member, limits: Limits, now: datetime, *, refused: bool = False
) -> tuple[datetime, str] | None:
    """Return until when and why the account leaves the pool by what an answer told, or None.

    What a refusal calls spent is for the table of verdicts; here the other windows count.
    """
    windows = [w for w in limits.windows if not refused or w.status != "rejected"]
    return reserve.leaves(
        windows,
        leave_at=member.leave_at,
        never_overage=member.never_overage,
        overage_in_use=limits.overage_in_use and not refused,
        now=now,
        reset_at=limits.reset_at,
    )


def may_return(row: Row, facts: Facts, member: Member) -> bool:
    """Tell whether a probed account returns: its limit is over, and nothing to be kept."""
    is_over = effects.proves_open(row, facts, member)
    return is_over and leaves(member, facts.limits, timezone.now()) is None


def _defer(member: Member, limits: Limits, model: str, now: datetime) -> None:
    """Let an account come last whose answers are paid for, or that can do no more this minute."""
    if limits.classic_spent_until is not None:
        bench.defer(member.id, min(limits.classic_spent_until, now + LONGEST_DEFERRAL))
    if not limits.overage_in_use:
        return
    if paid := reserve.paid_until(limits.windows, now, limits.reset_at):
        bench.defer(member.id, paid[0])
    elif model:
        bench.defer(member.id, now + reserve.UNKNOWN_RESET, model)


def _family(window: str, model: str) -> str:
    """Return what the window of a family counts: its name says it, or else the request's model."""
    return window if FAMILY.search(window) else model


def _is_out(member: Member, until: datetime, now: datetime) -> bool:
    """Tell whether the account has left already: this process just said so, or the pool does."""
    if bench.is_leaving(member.id, now):
        return True
    is_known = member.limited_until is not None and member.limited_until > until - JITTER
    return member.status is Status.RATE_LIMITED and is_known and member.probe_at is None
