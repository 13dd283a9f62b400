"""The table of states: every row of it, and every pair that is not in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from django.utils import timezone

from accounts.models import Account
from accounts.states import TRANSITIONS, Kind, Status, Trigger, target
from events.models import Event

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AHEAD, PAST = NOW + timedelta(hours=1), NOW - timedelta(hours=1)
EXPECTED = """
active        limit    rate_limited
active        reject   invalid
active        idle     inactive
active        disable  inactive
active        relink   active
rate_limited  limit    rate_limited
rate_limited  recover  active
rate_limited  reject   invalid
rate_limited  disable  inactive
rate_limited  relink   active
inactive      enable   active
inactive      relink   inactive
inactive      wake     active
inactive      disable  inactive
invalid       relink   active
invalid       heal     active
invalid       retry    active
"""
ROWS = [tuple(line.split()) for line in EXPECTED.split("\n") if line]
PAIRS = set(product(Status, Trigger))
FORBIDDEN = sorted(PAIRS - {(status, trigger) for status, trigger, _ in ROWS})


def make(status: str, limited_until: datetime | None = None) -> Account:
    return Account.objects.create(
        name="one", kind=Kind.API_KEY, status=status, limited_until=limited_until
    )


def test_the_table_is_the_one_of_the_rules() -> None:
    assert {(*pair, new) for pair, new in TRANSITIONS.items()} == set(ROWS)


@pytest.mark.parametrize(("old", "trigger", "new"), ROWS)
@pytest.mark.django_db
def test_a_row_of_the_table_moves_and_leaves_one_event(old: str, trigger: str, new: str) -> None:
    account = make(old, PAST)

    limited_until = AHEAD if trigger == "limit" else None
    moved = account.apply(Trigger(trigger), by="ada", now=NOW, limited_until=limited_until)

    account.refresh_from_db()
    assert (moved, account.status, account.state_version) == (True, new, 1)
    event = Event.objects.get()
    assert (event.kind, event.subject) == (f"account.{trigger}", account.subject)
    assert (event.data["old"], event.data["new"]) == (old, new)


@pytest.mark.parametrize(("old", "trigger"), FORBIDDEN)
@pytest.mark.django_db
def test_a_pair_that_is_not_in_the_table_changes_nothing(old: Status, trigger: Trigger) -> None:
    account = make(old)

    assert not account.apply(trigger, by="ada", now=NOW, limited_until=AHEAD)

    account.refresh_from_db()
    assert (account.status, account.state_version, account.limited_until) == (old, 0, None)
    assert not Event.objects.exists()


@pytest.mark.parametrize(
    ("old", "trigger"),
    [("inactive", "enable"), ("invalid", "relink"), ("invalid", "heal"), ("invalid", "retry")],
)
def test_who_returns_under_a_limit_returns_rate_limited(old: str, trigger: str) -> None:
    move = Status(old), Trigger(trigger)

    assert target(*move, AHEAD, NOW) is Status.RATE_LIMITED
    assert target(*move, PAST, NOW) is Status.ACTIVE
    assert target(*move, None, NOW) is Status.ACTIVE


@pytest.mark.django_db
def test_a_stale_copy_of_a_row_cannot_move_it() -> None:
    account = make("active")
    stale = Account.objects.get()
    account.apply(Trigger.DISABLE, by="ada")

    assert not stale.apply(Trigger.REJECT, by="relay", reason="auth_rejected")
    assert Account.objects.get().status == "inactive"
    assert Event.objects.count() == 1


@pytest.mark.django_db
def test_a_limit_only_moves_later() -> None:
    account = make("active")

    assert account.apply(Trigger.LIMIT, by="relay", limited_until=AHEAD, now=NOW)
    assert not account.apply(Trigger.LIMIT, by="relay", limited_until=PAST, now=NOW)
    assert Account.objects.get().limited_until == AHEAD


@pytest.mark.django_db
def test_a_removed_account_does_not_move() -> None:
    account = make("active")
    Account.objects.update(deleted_at=timezone.now())

    assert not account.apply(Trigger.DISABLE, by="ada")
