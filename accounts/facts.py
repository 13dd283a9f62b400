"""Account facts on their way from the data plane to the database: last use and limit windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts import nearing, series
from accounts.models import Account, LimitWindow, WindowSample
from lib import streams
from lib.streams import Appender, Row
from providers.base import Window
from usage import losses

STREAM = "facts"
TOLD = ("status", "utilization", "limit", "remaining", "reset_at", "observed_at")
LONG_AGO, FAR = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
# Of what was learnt further ahead than clocks differ, the clock was set back since.
AHEAD = timedelta(seconds=5)
# Whose window it is: the account and the window's name.
Key = tuple[int, str]

facts = Appender(STREAM)


def note(account: int, at: datetime, windows: Iterable[Window] = ()) -> None:
    """Note that an account was used at `at`, and what the answer said about its windows."""
    facts.append(row(account, at, windows))


def row(account: int, at: datetime, windows: Iterable[Window], *, used: bool = True) -> Row:
    """Return one fact as `write` takes it; `used`: learnt by using the account."""
    return {
        "account": account,
        "at": at.isoformat(),
        "used": used,
        "windows": [
            {
                "name": window.name,
                "status": window.status or "",
                "utilization": window.utilization,
                "limit": window.limit,
                "remaining": window.remaining,
                "reset_at": window.reset_at and window.reset_at.isoformat(),
            }
            for window in windows
        ],
    }


def drain() -> int:
    """Write the facts that wait in the stream, and return how many rows there were."""
    return streams.drain(STREAM, write, lost=partial(losses.note, STREAM))


def write(rows: Sequence[Row], now: datetime | None = None) -> None:
    """Write a batch of facts; an older or repeated one changes nothing."""
    now = now or timezone.now()
    used: dict[int, datetime] = {}
    told: dict[tuple[int, str, datetime], LimitWindow] = {}
    for fact in rows:
        account, at = int(fact["account"]), datetime.fromisoformat(fact["at"])
        if fact.get("used", True):
            used[account] = max(at, used.get(account, at))
        for given in fact["windows"]:
            window = _window(account, at, given)
            key = account, window.name, series.step(window.name, at)
            if key not in told or told[key].observed_at < at:
                told[key] = window
    concerned = {*used, *(account for account, _, _ in told)}
    alive = set(Account.objects.filter(pk__in=concerned).values_list("pk", flat=True))
    for account in alive & used.keys():
        _move_last_use(account, used[account], now)
    # One order for all writers, so that no two wait for each other.
    windows = [window for key, window in sorted(told.items()) if key[0] in alive]
    with transaction.atomic():
        before = _put_windows(windows, now)
        news = [w for w in windows if w.observed_at >= before[w.account_id, w.name]]
        late = [w for w in windows if w.observed_at < before[w.account_id, w.name]]
        series.put(_samples(news), _samples(late))
    nearing.announce(news, now)


def prune(now: datetime | None = None) -> None:
    """Forget how windows were used long ago, and which of those that are over were near."""
    now = now or timezone.now()
    series.prune(now)
    nearing.prune(now)


def _window(account: int, at: datetime, told: Row) -> LimitWindow:
    reset_at = told["reset_at"]
    return LimitWindow(
        account_id=account,
        name=str(told["name"])[:64],
        status=str(told["status"])[:32],
        utilization=None if told["utilization"] is None else float(told["utilization"]),
        limit=told.get("limit"),
        remaining=told.get("remaining"),
        reset_at=reset_at and datetime.fromisoformat(reset_at),
        observed_at=at,
    )


def _move_last_use(account: int, at: datetime, now: datetime) -> None:
    earlier = Q(last_used_at=None) | _yields("last_used_at", at, now)
    Account.objects.filter(earlier, pk=account).update(last_used_at=at)


def _yields(column: str, at: datetime, now: datetime) -> Q:
    """Match a moment that one at `at` replaces: an earlier one, or one that is still to come."""
    earlier = Q(**{f"{column}__lt": at})
    return earlier | Q(**{f"{column}__gt": now + AHEAD}) if at <= now + AHEAD else earlier


def _put_windows(windows: Sequence[LimitWindow], now: datetime) -> dict[Key, datetime]:
    """Store what is newer than what is there; return when each was observed before that."""
    newest = {(window.account_id, window.name): window for window in windows}
    LimitWindow.objects.bulk_create(newest.values(), ignore_conflicts=True)
    accounts = {account for account, _ in newest}
    rows = LimitWindow.objects.filter(account__in=accounts)
    before = {
        (account, name): at
        for account, name, at in rows.values_list("account_id", "name", "observed_at")
    }
    for key, window in newest.items():
        if before[key] > now + AHEAD >= window.observed_at:
            before[key] = LONG_AGO
        if before[key] >= window.observed_at:
            continue
        older = _yields("observed_at", window.observed_at, now)
        won = LimitWindow.objects.filter(older, account=window.account_id, name=window.name).update(
            **{field: getattr(window, field) for field in TOLD}
        )
        if not won:
            # Somebody was faster with something newer.
            before[key] = FAR
    return before


def _samples(windows: Iterable[LimitWindow]) -> list[WindowSample]:
    """Return the samples of the time series; a limit per minute has none."""
    return [
        WindowSample(
            account_id=window.account_id,
            name=window.name,
            at=series.step(window.name, window.observed_at),
            status=window.status,
            utilization=window.utilization,
            reset_at=window.reset_at,
        )
        for window in windows
        if window.utilization is not None and window.limit is None and window.remaining is None
    ]
