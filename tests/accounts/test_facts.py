"""Facts of the data plane: idempotent, only ever newer, and never in the way of each other."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import async_to_sync

from accounts import adding, facts
from accounts.models import Account, LimitWindow
from lib.redis import close, for_jobs
from providers.base import Window

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
pytestmark = pytest.mark.django_db


@pytest.fixture
def key(db: None) -> Account:
    return adding.add_secret("api_key", "key", "sk-ant-api03-key", by="ada")


@async_to_sync
async def note(*notes: tuple[int, datetime, list[Window]]) -> None:
    for account, at, windows in notes:
        facts.note(account, at, windows)
    await facts.facts.flushed()
    await close()


def test_a_use_and_its_windows_reach_the_database(key: Account) -> None:
    reset = NOON + timedelta(hours=5)
    note((key.pk, NOON, [Window("5h", "allowed", 0.25, reset), Window("7d")]))

    assert facts.drain() == 1

    key.refresh_from_db()
    windows = {row.name: row for row in LimitWindow.objects.filter(account=key)}
    assert key.last_used_at == NOON
    assert (windows["5h"].utilization, windows["5h"].reset_at) == (0.25, reset)
    assert (windows["7d"].status, windows["7d"].utilization) == ("", None)
    assert facts.drain() == 0


def test_only_a_newer_observation_counts(key: Account) -> None:
    def told(minutes: int, utilization: float) -> tuple[int, datetime, list[Window]]:
        at = NOON + timedelta(minutes=minutes)
        return key.pk, at, [Window("5h", "allowed", utilization)]

    note(told(1, 0.1), told(3, 0.3), told(2, 0.2))
    facts.drain()
    note(told(3, 0.9), told(0, 0.0))
    facts.drain()

    key.refresh_from_db()
    assert key.last_used_at == NOON + timedelta(minutes=3)
    assert LimitWindow.objects.get().utilization == 0.3

    note(told(4, 0.4))
    facts.drain()
    assert LimitWindow.objects.get().utilization == 0.4


@pytest.mark.parametrize(
    ("ahead", "counts"),
    [(timedelta(hours=1), True), (timedelta(seconds=6), True), (timedelta(seconds=4), False)],
)
def test_what_was_learnt_before_the_clock_was_set_back_yields(
    key: Account, ahead: timedelta, counts: bool
) -> None:
    def told(at: datetime, utilization: float, now: datetime) -> None:
        facts.write([facts.row(key.pk, at, [Window("5h", "allowed", utilization)])], now)

    told(NOON + ahead, 0.9, NOON + ahead)
    told(NOON, 0.1, NOON)

    key.refresh_from_db()
    window = LimitWindow.objects.get()
    assert window.utilization == (0.1 if counts else 0.9)
    assert key.last_used_at == window.observed_at == (NOON if counts else NOON + ahead)
    # Then it is as always.
    told(NOON - timedelta(seconds=1), 0.5, NOON)
    assert LimitWindow.objects.get().observed_at == window.observed_at


def test_facts_of_an_account_that_is_gone_hold_up_nobody(key: Account) -> None:
    note((key.pk + 100, NOON, [Window("5h", "allowed", 0.5)]), (key.pk, NOON, []))

    assert facts.drain() == 2

    key.refresh_from_db()
    assert key.last_used_at == NOON


def test_a_broken_row_is_put_aside(key: Account) -> None:
    with contextlib.closing(for_jobs()) as client:
        client.xadd(facts.STREAM, {"d": '{"account": "none"}'})
        note((key.pk, NOON, []))

        facts.drain()

        assert client.xlen(f"{facts.STREAM}:dead") == 1
    key.refresh_from_db()
    assert key.last_used_at == NOON
