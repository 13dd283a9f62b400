"""Windows that are nearly spent: announced once each, until they begin afresh."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import transaction

from accounts.models import Account, LimitWindow
from events import conditions
from events.models import Condition

NEAR = "account.near_limit"
# A window's reset is told a little differently by each answer; the next one is hours away.
JITTER = timedelta(minutes=10)
NOISE = 1e-9


def announce(windows: Iterable[LimitWindow], now: datetime) -> None:
    """Announce the windows of subscriptions that have come near their limit."""
    near = [window for window in windows if _is_near(window, now)]
    if not near or not _unknown(near):
        return
    accounts = Account.objects.filter(pk__in={window.account_id for window in near})
    with transaction.atomic():
        # Who is told of the same reset at once, but in another minute, waits and looks again.
        list(accounts.select_for_update(no_key=True).order_by("pk").values_list("pk"))
        for window, reset_at in _unknown(near):
            conditions.begin(
                NEAR,
                _subject(window),
                now=now,
                detail=f"{window.name} {reset_at.astimezone(UTC):%Y-%m-%dT%H:%M}",
                window=window.name,
                utilization=window.utilization,
                reset_at=reset_at.isoformat(),
            )


def prune(now: datetime) -> int:
    """Forget the windows that have begun afresh; return how many there were."""
    rows = Condition.objects.filter(kind=NEAR).values_list("subject", "detail")
    over = [row for row in rows if _reset(row[1]) < now - JITTER]
    return sum(conditions.end(NEAR, subject, detail=detail) for subject, detail in over)


def _is_near(window: LimitWindow, now: datetime) -> bool:
    # Windows of a subscription are called by their length; extra usage and limits per minute not.
    if not window.name[:1].isdigit() or window.utilization is None or window.reset_at is None:
        return False
    share = settings.CONFIG.near_limit_percent / 100
    return window.utilization >= share - NOISE and window.reset_at > now


def _unknown(near: Sequence[LimitWindow]) -> list[tuple[LimitWindow, datetime]]:
    """Return the windows that are not announced yet, each once and with its reset."""
    known = _known({_subject(window) for window in near})
    found = []
    for window in near:
        assert window.reset_at is not None
        resets = known.setdefault((_subject(window), window.name), [])
        if all(abs(reset - window.reset_at) >= JITTER for reset in resets):
            resets.append(window.reset_at)
            found.append((window, window.reset_at))
    return found


def _known(subjects: set[str]) -> dict[tuple[str, str], list[datetime]]:
    """Return the resets until which windows are announced already, by subject and window."""
    found: dict[tuple[str, str], list[datetime]] = {}
    rows = Condition.objects.filter(kind=NEAR, subject__in=subjects)
    for subject, detail in rows.values_list("subject", "detail"):
        found.setdefault((subject, detail.rpartition(" ")[0]), []).append(_reset(detail))
    return found


def _subject(window: LimitWindow) -> str:
    return f"account:{window.account_id}"


def _reset(detail: str) -> datetime:
    return datetime.fromisoformat(detail.rpartition(" ")[2]).replace(tzinfo=UTC)
