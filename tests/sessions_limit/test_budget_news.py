"""A budget that is nearly or wholly used is announced, once in its period."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from events import sentences
from events.models import Condition, Event
from lib.redis import for_jobs
from proxy_project.celery import SCHEDULE
from sessions_limit import nearing, tasks
from sessions_limit.models import ClientKey
from tests.usage.records import row
from usage import recorder, rollup

NOW = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 20, 23, tzinfo=UTC)
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_waits() -> Iterator[None]:
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()
        yield


@pytest.fixture
def key(db: None) -> ClientKey:
    return ClientKey.objects.create(
        name="laptop", hash="h", created_by="t", time_zone="Europe/Berlin", tokens_per_day=1000
    )


def spend(key: ClientKey, tokens: int, at: datetime = NOW) -> None:
    name = f"r{tokens}-{at.timestamp()}"
    recorder.write([row(name, key=key.pk, input_tokens=tokens) | {"started_at": at.timestamp()}])
    rollup.roll_up()


def told() -> list[tuple[str, float]]:
    rows = Event.objects.filter(kind__startswith="key.budget").order_by("id")
    return [(event.kind, event.data["utilization"]) for event in rows]


def test_it_is_announced_near_its_end_and_when_it_is_used_up(key: ClientKey) -> None:
    for number, tokens in enumerate((799, 1, 199, 1, 500)):
        spend(key, tokens, NOW + timedelta(seconds=number))
        nearing.watch(NOW)
        nearing.watch(NOW)

    assert told() == [("key.budget_near", 0.8), ("key.budget_spent", 1.0)]


def test_what_was_used_at_once_is_announced_as_used_up_only(key: ClientKey) -> None:
    spend(key, 2500)

    assert nearing.watch(NOW) == 1
    assert nearing.watch(NOW) == 0

    assert told() == [("key.budget_spent", 2.5)]


def test_each_period_and_each_new_budget_is_announced_for_itself(key: ClientKey) -> None:
    spend(key, 900)
    nearing.watch(NOW)
    spend(key, 950, MIDNIGHT)
    nearing.watch(MIDNIGHT)
    ClientKey.objects.update(tokens_per_day=1001)
    nearing.watch(MIDNIGHT)

    assert told() == [("key.budget_near", used) for used in (0.9, 0.95, 0.94)]
    # What was told of yesterday is forgotten.
    assert Condition.objects.count() == 2


@pytest.mark.parametrize(
    "terms",
    [
        {"tokens_per_day": 0},
        {"tokens_per_day": None},
        {"enabled": False},
        {"revoked_at": NOW},
    ],
)
def test_nothing_is_said_of_keys_that_are_meant_to_be_closed(
    key: ClientKey, terms: dict[str, Any]
) -> None:
    ClientKey.objects.update(**terms)
    spend(key, 5000)

    assert nearing.watch(NOW) == 0


def test_an_announcement_says_which_budget_and_until_when(key: ClientKey) -> None:
    ClientKey.objects.update(tokens_per_day=None, cost_per_day=2_500_000)
    # A million tokens of the prompt cost 5 USD.
    spend(key, 499_999)
    nearing.watch(NOW)
    spend(key, 1)
    nearing.watch(NOW)

    near, spent = Event.objects.filter(kind__startswith="key.budget").order_by("id")
    assert near.data == {
        "name": "laptop",
        "period": "day",
        "budget": "2.50 USD",
        "used": "2.499995 USD",
        "utilization": 0.99,
        "reset_at": MIDNIGHT.isoformat(),
    }
    assert [
        sentences.say(event.kind, event.subject, event.data, by="", at=NOW)
        for event in (near, spent)
    ] == [
        "Key laptop has used 99 % of its 2.50 USD a day (renewed 23:00 UTC).",
        "Key laptop has used up its 2.50 USD a day: it is refused until 23:00 UTC.",
    ]


def test_a_job_looks_each_minute(key: ClientKey) -> None:
    spend(key, 5000, datetime.now(UTC))

    tasks.watch_budgets()

    assert SCHEDULE["sessions_limit.tasks.watch_budgets"] == 60
    assert [kind for kind, _ in told()] == ["key.budget_spent"]
