"""What answers of the upstream do to an account: limits, refusals, cool-downs, late news."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from accounts import adding, health
from accounts.models import Account
from accounts.pool import load
from events.models import Event

pytestmark = pytest.mark.django_db


@pytest.fixture
def key(db: None) -> Account:
    return adding.add_secret("api_key", "key", "sk-ant-api03-key", by="ada")


def change(account: Account, **fields: Any) -> None:
    Account.objects.filter(pk=account.pk).update(**fields)


def hours(count: float) -> datetime:
    return timezone.now() + timedelta(hours=count)


def test_s03_a_limit_benches_the_account_until_its_reset(key: Account) -> None:
    until = hours(5)

    assert health.limit(key.pk, until, "rate_limit", observed_at=timezone.now(), row="D16")

    (member,) = load().members
    assert not member.is_usable(timezone.now())
    assert member.returns_at(timezone.now()) == until
    assert member.is_usable(until)
    assert Event.objects.get(kind="account.limit").data["row"] == "D16"


def test_s04_a_further_limit_only_extends(key: Account) -> None:
    now = timezone.now()
    first, later = hours(1), hours(2)

    assert health.limit(key.pk, first, "rate_limit", observed_at=now)
    assert not health.limit(key.pk, first, "rate_limit", observed_at=now)
    assert health.limit(key.pk, later, "rate_limit", observed_at=now)
    assert not health.limit(key.pk, first, "rate_limit", observed_at=now)

    key.refresh_from_db()
    assert (key.status, key.limited_until) == ("rate_limited", later)
    assert Event.objects.filter(kind="account.limit").count() == 2


def test_an_answer_older_than_the_present_state_says_nothing(key: Account) -> None:
    minute_ago = timezone.now() - timedelta(minutes=1)

    assert not health.limit(key.pk, hours(1), "rate_limit", observed_at=minute_ago)

    key.refresh_from_db()
    assert key.status == "active"


def test_a_limit_counts_although_the_clock_was_set_back(key: Account) -> None:
    change(key, status_changed_at=hours(1))

    assert health.limit(key.pk, hours(2), "rate_limit", observed_at=timezone.now())


@pytest.mark.parametrize("status", ["inactive", "invalid"])
def test_s15_s16_a_limit_of_an_account_that_is_out_is_only_noted(key: Account, status: str) -> None:
    change(key, status=status)
    until = hours(1)

    assert not health.limit(key.pk, until, "rate_limit", observed_at=timezone.now())
    assert not health.limit(key.pk, hours(0.5), "rate_limit", observed_at=timezone.now())

    key.refresh_from_db()
    assert (key.status, key.limited_until) == (status, until)


def test_a_refusal_counts_only_for_the_generation_it_was_about(key: Account) -> None:
    assert not health.refuse(key.pk, "auth_rejected", credential=uuid4())
    assert health.refuse(key.pk, "auth_rejected", credential=key.credential_id)

    key.refresh_from_db()
    assert (key.status, key.reason) == ("invalid", "auth_rejected")
    assert not health.refuse(key.pk, "provider_disabled", credential=None)


def test_a_cool_down_is_no_change_of_state(key: Account) -> None:
    until = hours(0.01)

    health.cool_down(key.pk, until, "overloaded")
    health.cool_down(key.pk, hours(0.005), "overloaded")

    key.refresh_from_db()
    assert (key.status, key.cooldown_until, key.state_version) == ("active", until, 0)
    assert not load().members[0].is_usable(timezone.now())
    assert Event.objects.filter(kind="account.cooldown").count() == 1


def test_an_invalid_account_does_not_recover_by_the_clock(key: Account) -> None:
    change(key, status="invalid", limited_until=hours(-1))

    assert not health.recover(key.pk, by="job")
    assert not health.recover(key.pk + 1, by="job")


def test_an_account_that_leaves_for_its_owners_sake_is_not_probed(key: Account) -> None:
    now, until = timezone.now(), hours(5)
    change(key, probe_at=hours(-1))

    assert health.limit(key.pk, until, "headroom (5h)", observed_at=now, probes=False)

    (member,) = load().members
    assert member.probe_at is None
    assert not member.may_be_probed(now)


@pytest.mark.parametrize("seconds", [-90, 0, 90])
def test_leaving_twice_is_leaving_once_and_ends_the_probes(key: Account, seconds: int) -> None:
    now, until = timezone.now(), hours(5)
    assert health.limit(key.pk, until, "limit_reached (5h)", observed_at=now)

    again = until + timedelta(seconds=seconds)
    assert not health.limit(key.pk, again, "overage (5h)", observed_at=now, probes=False)

    key.refresh_from_db()
    assert (key.limited_until, key.reason) == (until, "limit_reached (5h)")
    assert key.probe_at is None
    assert Event.objects.filter(kind="account.limit").count() == 1


def test_leaving_for_longer_extends_what_was(key: Account) -> None:
    now, later = timezone.now(), hours(90)
    assert health.limit(key.pk, hours(5), "limit_reached (5h)", observed_at=now)

    assert health.limit(key.pk, later, "headroom (7d)", observed_at=now, probes=False)

    key.refresh_from_db()
    assert (key.limited_until, key.reason, key.probe_at) == (later, "headroom (7d)", None)
