"""Account facts on their way from the data plane to the database: last use and limit windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial

from django.db.models import Q

from accounts.models import Account, LimitWindow
from lib import streams
from lib.streams import Appender, Row
from providers.base import Window
from usage import losses

STREAM = "facts"

facts = Appender(STREAM)


def note(account: int, at: datetime, windows: Iterable[Window] = ()) -> None:
    """Note that an account was used at `at`, and what the answer said about its windows."""
    facts.append(
        {
            "account": account,
            "at": at.isoformat(),
            "windows": [
                {
                    "name": window.name,
                    "status": window.status or "",
                    "utilization": window.utilization,
                    "reset_at": window.reset_at and window.reset_at.isoformat(),
                }
                for window in windows
            ],
        }
    )


def drain() -> int:
    """Write the facts that wait in the stream, and return how many rows there were."""
    return streams.drain(STREAM, write, lost=partial(losses.note, STREAM))


def write(rows: Sequence[Row]) -> None:
    """Write a batch of facts; an older or repeated one changes nothing."""
    used: dict[int, datetime] = {}
    seen: dict[tuple[int, str], LimitWindow] = {}
    for row in rows:
        account, at = int(row["account"]), datetime.fromisoformat(row["at"])
        used[account] = max(at, used.get(account, at))
        for told in row["windows"]:
            window = _window(account, at, told)
            known = seen.get((account, window.name))
            if known is None or known.observed_at < at:
                seen[account, window.name] = window
    alive = set(Account.objects.filter(pk__in=used).values_list("pk", flat=True))
    for account in alive:
        _move_last_use(account, used[account])
    _put_windows([window for (account, _), window in seen.items() if account in alive])


def _window(account: int, at: datetime, told: Row) -> LimitWindow:
    reset_at = told["reset_at"]
    return LimitWindow(
        account_id=account,
        name=str(told["name"])[:64],
        status=str(told["status"])[:32],
        utilization=None if told["utilization"] is None else float(told["utilization"]),
        reset_at=reset_at and datetime.fromisoformat(reset_at),
        observed_at=at,
    )


def _move_last_use(account: int, at: datetime) -> None:
    earlier = Q(last_used_at=None) | Q(last_used_at__lt=at)
    Account.objects.filter(earlier, pk=account).update(last_used_at=at)


def _put_windows(windows: list[LimitWindow]) -> None:
    LimitWindow.objects.bulk_create(windows, ignore_conflicts=True)
    accounts = {window.account_id for window in windows}
    stored = {
        (account, name): at
        for account, name, at in LimitWindow.objects.filter(account__in=accounts).values_list(
            "account_id", "name", "observed_at"
        )
    }
    for window in windows:
        if stored[window.account_id, window.name] >= window.observed_at:
            continue
        LimitWindow.objects.filter(
            account=window.account_id, name=window.name, observed_at__lt=window.observed_at
        ).update(
            status=window.status,
            utilization=window.utilization,
            reset_at=window.reset_at,
            observed_at=window.observed_at,
        )
