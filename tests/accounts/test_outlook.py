"""The outlook of all accounts and of the pool, from what is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts import adding, facts, outlook
from accounts.models import Account
from accounts.outlook import AccountOutlook, WindowOutlook
from accounts.states import Kind, Status
from providers.base import Window

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SOON, FRIDAY = NOW + 2 * HOUR, NOW + 3 * DAY
pytestmark = pytest.mark.django_db


def add(name: str, **fields: Any) -> Account:
    account = adding.add_secret("setup_token", name, f"sk-ant-oat01-{name}", by="ada")
    Account.objects.filter(pk=account.pk).update(**{"kind": Kind.OAUTH} | fields)
    return account


def note(account: Account, ago: timedelta, name: str, used: float, reset: datetime) -> None:
    facts.write([facts.row(account.pk, NOW - ago, [Window(name, "allowed", used, reset)])], NOW)


def found(account: Account) -> dict[str, WindowOutlook]:
    by_id = {entry.account: entry for entry in outlook.load(NOW).accounts}
    return {window.name: window for window in by_id[account.pk].windows}


def test_each_window_has_its_rate_and_its_end() -> None:
    ada = add("ada")
    note(ada, HOUR, "5h", 0.3, SOON)
    note(ada, timedelta(0), "5h", 0.7, SOON)
    note(ada, 2 * DAY, "7d", 0.2, FRIDAY)
    note(ada, HOUR, "7d", 0.4, FRIDAY)

    windows = found(ada)

    assert windows["5h"] == WindowOutlook(
        "5h", 0.7, SOON, NOW, pytest.approx(0.4), NOW + 45 * MINUTE
    )
    # Nothing was seen in the day until an hour ago; what held before it counts.
    assert windows["7d"].rate_per_hour == pytest.approx(0.2 / 48)
    assert windows["7d"].runs_out_at is None


def test_a_window_that_began_afresh_is_unused_and_burns_nothing() -> None:
    ada = add("ada")
    note(ada, HOUR, "5h", 0.3, NOW - MINUTE)
    note(ada, 2 * MINUTE, "5h", 0.9, NOW - MINUTE)

    assert found(ada)["5h"] == WindowOutlook("5h", 0.0, None, NOW - 2 * MINUTE)


def test_the_pool_counts_the_plans_that_can_serve() -> None:
    big = add("big", tier="default_claude_max_20x")
    small = add("small", tier="default_claude_ai")
    spent = add("spent", status=Status.RATE_LIMITED, limited_until=SOON)
    add("unknown")
    for out in (add("off", status=Status.INACTIVE), add("gone", deleted_at=NOW)):
        note(out, MINUTE, "5h", 0.0, SOON)
    adding.add_secret("api_key", "key", "sk-ant-api03-key", by="ada")
    note(spent, MINUTE, "5h", 1.0, SOON)
    note(small, MINUTE, "5h", 0.5, SOON)
    note(big, HOUR, "5h", 0.5, SOON)
    note(big, timedelta(0), "5h", 0.75, SOON)

    five, week = outlook.load(NOW).pool

    assert (five.name, five.headroom, five.of, five.unknown) == ("5h", 5.5, 22, 1)
    assert five.rate_per_hour == pytest.approx(5.0)
    assert five.runs_out_at == NOW + 66 * MINUTE
    assert (week.name, week.headroom, week.of, week.unknown) == ("7d", 0, 0, 4)


def test_it_asks_as_little_for_many_accounts_as_for_none() -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as context:
            outlook.load(NOW)
        return len(context)

    add("first")
    one = queries()
    for number in range(4):
        account = add(f"p{number}")
        for ago in (2 * DAY, HOUR, timedelta(0)):
            note(account, ago, "5h", 0.3, SOON)
            note(account, ago, "7d", 0.3, FRIDAY)

    assert queries() == one == 4


def test_no_secret_is_read() -> None:
    add("ada")

    with CaptureQueriesContext(connection) as context:
        outlook.load(NOW)

    assert not any("token" in query["sql"] for query in context.captured_queries)
    assert outlook.load(NOW).accounts[0] == AccountOutlook(Account.objects.get().pk, "ada")
