"""What is told to Prometheus of the accounts: their states, their windows, and calls about them."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterator
from datetime import datetime

from prometheus_client.metrics_core import Metric

from accounts import forecast
from accounts.models import Account, LimitWindow
from accounts.states import Kind, Status, is_ahead
from lib.exposition import Counter, Table, gauge

JOB_CALLS = "Calls that jobs made: token refreshes, questions for usage and profile, webhooks."
METRICS: Table = (
    Counter("job_calls", JOB_CALLS, ("job", "outcome")),
    Counter("backoff_seconds", "Waits that were set after calls of jobs that failed.", ("job",)),
)
WINDOW = ("account", "window")


def gauges(now: datetime) -> Iterator[Metric]:
    """Read how the accounts stand; two queries."""
    fields = ("name", "kind", "status", "limited_until", "cooldown_until")
    rows = list(Account.objects.filter(deleted_at=None).only(*fields))
    # All states of all kinds, so that none is missing from a sum: a zero is true here.
    states = Count({(kind.value, status.value): 0 for kind in Kind for status in Status})
    states.update((row.kind, row.status) for row in rows)
    yield gauge("accounts", "Accounts by their state.", states, ("kind", "status"))
    cooling = sum(is_ahead(row.cooldown_until, now) for row in rows)
    yield gauge("accounts_cooling", "Accounts that rest for a moment.", {(): cooling})
    usable = {(str(row.pk),): float(_is_usable(row, now)) for row in rows}
    yield gauge("account_usable", "Whether requests may go to it now.", usable, ("account",))
    info = {(str(row.pk), row.name, row.kind): 1.0 for row in rows}
    yield gauge("account_info", "Its name and kind.", info, ("account", "name", "kind"))
    yield from _windows(now)


def _windows(now: datetime) -> Iterator[Metric]:
    used: dict[tuple[str, ...], float] = {}
    resets: dict[tuple[str, ...], float] = {}
    for row in LimitWindow.objects.filter(account__deleted_at=None):
        key = str(row.account_id), row.name
        utilization = forecast.used_now(row.utilization, row.reset_at, now)
        if utilization is not None:
            used[key] = utilization
        if row.reset_at is not None and row.reset_at > now:
            resets[key] = row.reset_at.timestamp()
    help = "How far a limit window is used; 1 is spent."
    yield gauge("account_window_utilization_ratio", help, used, WINDOW)
    help = "When a limit window begins anew."
    yield gauge("account_window_reset_timestamp_seconds", help, resets, WINDOW)


def _is_usable(row: Account, now: datetime) -> bool:
    if is_ahead(row.cooldown_until, now):
        return False
    if row.status == Status.RATE_LIMITED:
        return not is_ahead(row.limited_until, now)
    return row.status == Status.ACTIVE
