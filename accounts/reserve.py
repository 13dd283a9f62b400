"""What an account keeps for its owner: when it leaves the pool, and what is withheld; pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from providers.base import WHOLE_ACCOUNT, Window

# How long to stay away when nobody says when a window begins afresh.
UNKNOWN_RESET = timedelta(hours=1)
# 0.9 may come as 0.8999999999: sums of floats are not exact.
NOISE = 1e-9
HEADROOM, OVERAGE = "headroom", "overage"


def leaves(
    windows: Iterable[Window],
    *,
    leave_at: float | None,
    never_overage: bool,
    overage_in_use: bool,
    now: datetime,
    reset_at: datetime | None = None,
) -> tuple[datetime, str] | None:
    """Return until when and why an account leaves the pool; None if it stays.

    `leave_at` and utilizations are fractions. Only windows of the whole account count: what of
    one family of models is used up is for `withheld`. `reset_at` is that of the answer as a whole,
    for paid usage of which no window tells. Why is "headroom (5h)" or "overage (5h)".
    """
    told = list(windows)
    ends = []
    if never_overage and overage_in_use and (paid := paid_until(told, now, reset_at)):
        ends.append(paid)
    ends += [
        (until, f"{HEADROOM} ({window.name})")
        for window in told
        if window.name in WHOLE_ACCOUNT
        and _is_used(window, leave_at)
        and (until := _end(window, now))
    ]
    return max(ends, key=lambda end: end[0], default=None)


def withheld(
    windows: Iterable[Window],
    *,
    leave_at: float | None,
    never_overage: bool,
    overage_in_use: bool,
    now: datetime,
) -> dict[str, datetime]:
    """Return the windows of single families of models that others may not use, and until when."""
    is_paid = never_overage and overage_in_use
    return {
        window.name: until
        for window in windows
        if _is_of_family(window)
        and (_is_used(window, leave_at) or (is_paid and _is_spent(window)))
        and (until := _end(window, now))
    }


def paid_until(
    windows: Iterable[Window], now: datetime, reset_at: datetime | None = None
) -> tuple[datetime, str] | None:
    """Return until when and why an account whose extra usage is in use is paid for by the request.

    None if that is so for one family of models only.
    """
    spent = [(w, until) for w in windows if _is_spent(w) and (until := _end(w, now))]
    if whole := [(until, w.name) for w, until in spent if w.name in WHOLE_ACCOUNT]:
        until, name = max(whole)
        return until, f"{OVERAGE} ({name})"
    if any(_is_of_family(window) for window, _ in spent):
        return None
    return reset_at or now + UNKNOWN_RESET, OVERAGE


def _is_of_family(window: Window) -> bool:
    # A plan's windows are called by their length; what else is told ("overage") is none of them.
    return window.name[:1].isdigit() and window.name not in WHOLE_ACCOUNT


def _is_spent(window: Window) -> bool:
    return window.status == "rejected" or _is_used(window, 1.0)


def _is_used(window: Window, share: float | None) -> bool:
    used = window.utilization
    return share is not None and used is not None and used >= share - NOISE


def _end(window: Window, now: datetime) -> datetime | None:
    """Return when a window begins afresh; None for one that has done so already."""
    if window.reset_at is None:
        return now + UNKNOWN_RESET
    return window.reset_at if window.reset_at > now else None
