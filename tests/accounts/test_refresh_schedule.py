"""Refreshing ahead of need: who is due, and when nobody is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from accounts import adding, schedule, tokens
from accounts.models import Account, Credential
from events import journal
from tests.support.simulator import Simulator

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TOKEN = {"path": "/v1/oauth/token"}


def test_each_account_has_its_own_moment_between_75_and_85_percent() -> None:
    life = timedelta(hours=8)
    moments = [schedule.moment(account, NOON, NOON + life) for account in range(500)]
    shares = [(moment - NOON) / life for moment in moments]

    assert 0.75 <= min(shares) < 0.76
    assert 0.84 < max(shares) <= 0.85
    assert schedule.moment(7, NOON, NOON + life) == moments[7]


@pytest.mark.django_db(transaction=True)
def test_the_beat_refreshes_what_is_due_and_nothing_else(
    link: Callable[..., Account], simulator: Simulator
) -> None:
    emails = ["due", "limited", "disabled", "dead"]
    accounts = {name: link(f"{name}@example.com") for name in emails}
    later = timezone.now() + timedelta(hours=7)
    for name, status in (
        ("limited", "rate_limited"),
        ("disabled", "inactive"),
        ("dead", "invalid"),
    ):
        row = Account.objects.filter(pk=accounts[name].pk)
        row.update(status=status, limited_until=later)
    adding.add_secret("setup_token", "setup", "sk-ant-oat01-setup", by="ada")

    assert asyncio.run(tokens.refresh_due(timezone.now() + timedelta(hours=5, minutes=50))) == 0
    assert asyncio.run(tokens.refresh_due(timezone.now() + timedelta(hours=6, minutes=50))) == 2

    renewed = Credential.objects.filter(generation=2).values_list("account__name", flat=True)
    assert set(renewed) == {"due@example.com", "limited@example.com"}
    assert simulator.token_ledger()["refreshes"] == 2


@pytest.mark.django_db(transaction=True)
def test_one_that_fails_does_not_hold_up_the_others(
    link: Callable[..., Account], simulator: Simulator
) -> None:
    for name in ("a", "b", "c"):
        link(f"{name}@example.com")
    simulator.script(TOKEN | {"account": "b@example.com"}, status=429, body={})
    ends = timezone.now() + timedelta(hours=7)

    assert asyncio.run(tokens.refresh_due(ends)) == 2
    assert asyncio.run(tokens.refresh_due()) == 0


@pytest.mark.django_db(transaction=True)
def test_while_the_endpoint_fails_for_all_only_one_account_is_a_probe(
    link: Callable[..., Account],
) -> None:
    for name in ("a", "b", "c"):
        link(f"{name}@example.com")
    now = timezone.now()
    for _ in range(5):
        journal.record("account.refresh_failed", "account:0")
    Credential.objects.update(obtained_at=now - timedelta(hours=7), expires_at=now)

    assert len(schedule.due(now + timedelta(seconds=1))) == 0
    assert len(schedule.due(now + timedelta(seconds=61))) == 1
    assert len(schedule.due(now + timedelta(minutes=6))) == 3
