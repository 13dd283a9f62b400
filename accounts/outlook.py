"""How every account's windows and the pool's are used, how fast, and when they run out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import OuterRef, Q, Subquery

from accounts import forecast
from accounts.forecast import POOLED, RECENT, Burn, Sample, Share
from accounts.models import Account, LimitWindow, WindowSample
from accounts.states import Kind, Status

# Whose windows are those of a plan; an API key has none.
PLANS = (Kind.OAUTH, Kind.SETUP_TOKEN)
WEEK = forecast.LENGTHS["7d"]
Series = dict[tuple[int, str], list[Sample]]


@dataclass(frozen=True, slots=True)
class WindowOutlook:
    """One window of an account: utilization and rate are fractions of it, None where unknown."""

    name: str
    utilization: float | None
    reset_at: datetime | None
    observed_at: datetime
    rate_per_hour: float | None = None
    runs_out_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AccountOutlook:
    """The windows of one account, by name."""

    account: int
    name: str
    windows: tuple[WindowOutlook, ...] = ()


@dataclass(frozen=True, slots=True)
class Outlook:
    """All accounts, and of each of the plans' windows what the pool has left."""

    accounts: tuple[AccountOutlook, ...]
    pool: tuple[forecast.Total, ...]


def load(now: datetime) -> Outlook:
    """Read and forecast everything at `now`; four queries, however many accounts there are."""
    rows = _rows(None)
    told = _outlooks(rows, now, None)
    seen = {one.account: one.windows for one in told}
    pooled = [row for row in rows if row.kind in PLANS and _is_in_pool(row)]
    return Outlook(
        told,
        tuple(
            forecast.pool(name, [_share(row, name, seen[row.pk], now) for row in pooled], now)
            for name in POOLED
        ),
    )


def accounts(now: datetime, pk: int | None = None) -> tuple[AccountOutlook, ...]:
    """Read and forecast the windows of every account, or of one."""
    return _outlooks(_rows(pk), now, pk)


def _rows(pk: int | None) -> list[Account]:
    rows = Account.objects.filter(deleted_at=None).prefetch_related("windows")
    rows = rows if pk is None else rows.filter(pk=pk)
    fields = ("name", "kind", "status", "tier", "limited_until", "cooldown_until")
    return list(rows.only(*fields))


def _outlooks(rows: Iterable[Account], now: datetime, pk: int | None) -> tuple[AccountOutlook, ...]:
    series = _series(now, pk)
    return tuple(AccountOutlook(row.pk, row.name, _windows(row, series, now)) for row in rows)


def _windows(account: Account, series: Series, now: datetime) -> tuple[WindowOutlook, ...]:
    rows = sorted(account.windows.all(), key=lambda row: row.name)
    return tuple(_window(row, series.get((account.pk, row.name), []), now) for row in rows)


def _window(row: LimitWindow, samples: Sequence[Sample], now: datetime) -> WindowOutlook:
    is_over = row.reset_at is not None and row.reset_at <= now
    burn = (forecast.burn(row.name, samples, now) if not is_over else None) or Burn(0.0)
    return WindowOutlook(
        row.name,
        forecast.used_now(row.utilization, row.reset_at, now),
        None if is_over else row.reset_at,
        row.observed_at,
        burn.rate_per_hour or None,
        burn.runs_out_at,
    )


def _series(now: datetime, pk: int | None) -> Series:
    """Read the samples that a forecast looks at, and of a week also the last one before them."""
    whose = Q() if pk is None else Q(account=pk)
    day = now - RECENT["7d"]
    weekly = Q(name="7d") | Q(name__startswith="7d_")
    recent = Q(name="5h", at__gt=now - forecast.LENGTHS["5h"]) | (weekly & Q(at__gt=day))
    before = WindowSample.objects.filter(
        account=OuterRef("account"), name=OuterRef("name"), at__gt=now - WEEK, at__lte=day
    ).order_by("-at")
    last = LimitWindow.objects.filter(whose, weekly).annotate(
        last=Subquery(before.values("pk")[:1])
    )
    samples: Series = defaultdict(list)
    for chosen in (Q(pk__in=last.values("last")), recent):
        rows = WindowSample.objects.filter(whose, chosen, at__lte=now, account__deleted_at=None)
        for account, name, at, utilization, reset_at in rows.order_by("at").values_list(
            "account_id", "name", "at", "utilization", "reset_at"
        ):
            samples[account, name].append(Sample(at, utilization, reset_at))
    return samples


def _is_in_pool(account: Account) -> bool:
    return account.status in (Status.ACTIVE, Status.RATE_LIMITED)


def _share(account: Account, name: str, windows: Iterable[WindowOutlook], now: datetime) -> Share:
    size = forecast.size(account.tier)
    back = _returns_at(account, now)
    window = next((window for window in windows if window.name == name), None)
    if window is None:
        return Share(size, None, returns_at=back)
    return Share(size, window.utilization, window.reset_at, window.rate_per_hour or 0.0, back)


def _returns_at(account: Account, now: datetime) -> datetime | None:
    limited = account.limited_until if account.status == Status.RATE_LIMITED else None
    times = (limited, account.cooldown_until)
    return max((at for at in times if at is not None and at > now), default=None)
