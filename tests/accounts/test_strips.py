"""Which state an account was in when, from the journal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts import adding, strips
from accounts.models import Account
from accounts.states import Kind, Status
from events import journal
from events.models import Event

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
BEGAN = NOW - 100 * HOUR


def ago(hours: float, old: Any, new: Any) -> tuple[datetime, Any, Any]:
    return NOW - hours * HOUR, old, new


@pytest.mark.parametrize(
    ("moves", "told"),
    [
        ([], [("active", 100)]),
        ([ago(4, "invalid", "active")], [("invalid", 96), ("active", 4)]),
        (
            [ago(9, "active", "rate_limited"), ago(4, "rate_limited", "active")],
            [("active", 91), ("rate_limited", 5), ("active", 4)],
        ),
        # A further limit is no change of state, and a hole in the journal none to stumble over.
        ([ago(9, "active", "active"), ago(4, "inactive", "active")], [("active", 100)]),
        ([ago(4, None, "active"), ago(3, "sleepy", "active"), ago(2, [], {})], [("active", 100)]),
        # Older than the row itself.
        ([ago(200, "invalid", "active")], [("invalid", 0), ("active", 100)]),
    ],
)
def test_the_states_follow_from_the_moves(moves: Any, told: Any) -> None:
    found = strips.stretches(moves, Status.ACTIVE, BEGAN, NOW)

    assert [(one.status, one.seconds / 3600) for one in found] == told


@pytest.mark.django_db
def test_each_span_is_drawn_with_what_falls_into_it() -> None:
    account = adding.add_secret(Kind.API_KEY, "ada", "sk-ant-api03-a", "anna")
    Account.objects.update(created_at=NOW - 400 * HOUR)
    for hours, old, new in ((42, "active", "rate_limited"), (18, "rate_limited", "active")):
        event = journal.record("account.limit", account.subject, old=old, new=new)
        Event.objects.filter(pk=event.pk).update(at=NOW - hours * HOUR)
    account.refresh_from_db()

    day, week = strips.load(account, NOW)

    assert day.totals == (
        (Status.ACTIVE, "active", 18 * 3600),
        (Status.RATE_LIMITED, "rate limited", 6 * 3600),
    )
    assert [one.path for one in day.stretches] == ["M0 6H250V12H0Z", "M250 0H1000V12H250Z"]
    assert [one.status for one in week.stretches] == ["active", "rate_limited", "active"]
    assert sum(seconds for _, _, seconds in week.totals) == 7 * 24 * 3600


def test_a_moment_is_still_seen_at_the_very_end() -> None:
    found = strips.stretches([ago(0.001, "active", "invalid")], Status.INVALID, BEGAN, NOW)

    strip = strips._strip("24 hours", found, NOW - 24 * HOUR, NOW)

    assert strip.stretches[-1].path == "M997 0H1000V4H997Z M997 8H1000V12H997Z"
