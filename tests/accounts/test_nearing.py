"""A window near its limit is announced once, until it begins afresh."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections

from accounts import adding, facts, nearing
from accounts.models import Account
from events import conditions
from events.models import Event
from providers.base import Window

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
RESET = NOON + 3 * HOUR
pytestmark = pytest.mark.django_db


@pytest.fixture
def key(db: None) -> Account:
    return adding.add_secret("api_key", "key", "sk-ant-api03-key", by="ada")


def tell(account: Account, *windows: Window, at: datetime = NOON, now: datetime = NOON) -> None:
    facts.write([facts.row(account.pk, at, windows)], now)


def announced() -> list[dict[str, Any]]:
    return list(Event.objects.filter(kind="account.near_limit").values_list("data", flat=True))


@pytest.mark.parametrize(
    ("window", "is_near"),
    [
        (Window("5h", "allowed", 0.9, RESET), True),
        (Window("7d", "allowed_warning", 0.9 - 1e-12, RESET), True),
        (Window("7d_oi", "rejected", 1.01, RESET), True),
        (Window("5h", "allowed", 0.89, RESET), False),
        (Window("5h", "allowed_warning", None, RESET), False),
        (Window("5h", "allowed", 0.9, None), False),
        (Window("5h", "allowed", 0.9, NOON), False),
        (Window("overage", "allowed", 0.99, RESET), False),
        (Window("requests", None, 0.99, RESET, 100, 1), False),
    ],
)
def test_it_is_announced_at_the_set_share(key: Account, window: Window, is_near: bool) -> None:
    tell(key, window)

    assert len(announced()) == is_near


def test_it_says_which_window_how_far_and_until_when(key: Account) -> None:
    tell(key, Window("5h", "allowed", 0.93, RESET), Window("7d", "allowed", 0.2, RESET))

    (event,) = announced()
    assert event == {"window": "5h", "utilization": 0.93, "reset_at": RESET.isoformat()}
    assert Event.objects.get(kind="account.near_limit").subject == key.subject


@pytest.mark.django_db(transaction=True)
def test_two_who_are_told_of_it_at_once_announce_it_once(
    key: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, look = threading.Barrier(2), nearing._known

    def look_together(subjects: set[str]) -> dict[tuple[str, str], list[datetime]]:
        found = look(subjects)
        with contextlib.suppress(threading.BrokenBarrierError):
            looked.wait(0.3)
        return found

    def hear(seconds: int) -> None:
        tell(key, Window("5h", "allowed", 0.93, RESET + timedelta(seconds=seconds)))
        connections.close_all()

    monkeypatch.setattr(nearing, "_known", look_together)
    # The same reset, told before and after the full minute.
    threads = [threading.Thread(target=hear, args=[seconds]) for seconds in (-1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(announced()) == 1


def test_the_share_is_a_setting(key: Account, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"near_limit_percent": 50})

    tell(key, Window("5h", "allowed", 0.5, RESET))

    assert len(announced()) == 1


def test_further_answers_of_the_same_window_announce_nothing(key: Account) -> None:
    for seconds in (0, 29, 31, -45, 0):
        reset = RESET + timedelta(seconds=seconds)
        tell(key, Window("5h", "allowed", 0.95, reset), at=NOON + timedelta(seconds=seconds))

    assert len(announced()) == 1


def test_the_same_fact_delivered_twice_announces_once(key: Account) -> None:
    fact = facts.row(key.pk, NOON, [Window("5h", "allowed", 0.95, RESET)])

    facts.write([fact, fact], NOON)
    facts.write([fact], NOON)

    assert len(announced()) == 1


def test_a_fact_that_comes_after_a_newer_one_announces_nothing(key: Account) -> None:
    tell(key, Window("5h", "allowed", 0.1, RESET + 5 * HOUR), at=NOON + HOUR, now=NOON + HOUR)
    tell(key, Window("5h", "allowed", 0.95, RESET), at=NOON, now=NOON + HOUR)

    assert announced() == []


def test_the_next_window_is_announced_again_and_the_old_one_forgotten(key: Account) -> None:
    tell(key, Window("5h", "allowed", 0.95, RESET))
    later = RESET + HOUR

    assert nearing.prune(RESET) == 0
    assert nearing.prune(later) == 1
    assert not conditions.holds("account.near_limit", key.subject)
    tell(key, Window("5h", "allowed", 0.95, RESET + 5 * HOUR), at=later, now=later)

    assert len(announced()) == 2
