"""What a told usage proves about an account: its limit is over, ends earlier, or has come; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from accounts import reserve
from providers.base import WHOLE_ACCOUNT, Window

SPENT = 1.0
OVERAGE = "overage"
# A limit that no window has set (credit, a cap, one without a name) is never proved by usage.
REASON = re.compile(r"(limit_reached|headroom|overage) \(([a-z0-9_]+(?:, [a-z0-9_]+)*)\)")
# Resets are told a little differently each time.
JITTER = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Closed:
    """An account that is to be left alone until `until`; `is_spent`: there is nothing left."""

    until: datetime
    is_spent: bool
    reason: str


def closed(
    windows: Sequence[Window], now: datetime, *, leave_at: float | None, never_overage: bool
) -> Closed | None:
    """Say why and until when a usable account is to be left alone; None: it is not.

    A spent window is no limit while the owner lets the account go on with paid extra usage.
    """
    ends = []
    if kept := reserve.leaves(
        windows, leave_at=leave_at, never_overage=never_overage, overage_in_use=False, now=now
    ):
        ends.append(Closed(kept[0], False, kept[1]))
    spent = {
        window.name: window.reset_at
        for window in windows
        if window.name in WHOLE_ACCOUNT
        and _is_shut(window, SPENT)
        and window.reset_at is not None
        and window.reset_at > now
    }
    extra = any(window.name == OVERAGE and _is_open(window, SPENT) for window in windows)
    if spent and (never_overage or not extra):
        names = ", ".join(sorted(spent))
        ends.append(Closed(max(spent.values()), True, f"limit_reached ({names})"))
    return max(ends, key=lambda end: (end.until, end.is_spent), default=None)


def is_over(reason: str, windows: Iterable[Window], *, leave_at: float | None) -> bool:
    """Tell whether every window that `reason` names is told, and open again."""
    names, line = _blamed(reason, leave_at)
    told = {window.name: window for window in windows}
    return bool(names) and all(name in told and _is_open(told[name], line) for name in names)


def earlier_end(
    reason: str, windows: Iterable[Window], until: datetime, *, leave_at: float | None
) -> datetime | None:
    """Return the true end of a limit that stands until `until`, if it is told and earlier."""
    names, line = _blamed(reason, leave_at)
    blamed = [window for window in windows if window.name in names]
    resets = [window.reset_at for window in blamed if _is_shut(window, line)]
    ends = [reset for reset in resets if reset is not None]
    is_told = bool(ends) and len(ends) == len(resets) and {w.name for w in blamed} == names
    return max(ends) if is_told and max(ends) < until - JITTER else None


def _blamed(reason: str, leave_at: float | None) -> tuple[set[str], float]:
    """Return the windows that keep an account out, and from where on they do."""
    match = REASON.fullmatch(reason)
    if match is None:
        return set(), SPENT
    names = set(match[2].split(", "))
    line = min(leave_at or SPENT, SPENT) if match[1] == reserve.HEADROOM else SPENT
    # A spent window of one model family stood beside it and keeps nobody else out.
    return names & WHOLE_ACCOUNT or names, line


def _is_open(window: Window, line: float) -> bool:
    used = window.utilization
    return used is not None and used < line - reserve.NOISE


def _is_shut(window: Window, line: float) -> bool:
    used = window.utilization
    return used is not None and used >= line - reserve.NOISE
