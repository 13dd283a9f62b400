"""The time series of windows: one sample a step, whatever comes twice, late or in disorder."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from accounts import adding, facts, series
from accounts.models import Account, LimitWindow, WindowSample
from accounts.series import BATCH, KEPT, Point, points, prune
from lib.streams import Row
from providers.base import Window

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
STEP, RESET = timedelta(minutes=5), NOON + timedelta(hours=3)
pytestmark = pytest.mark.django_db


@pytest.fixture
def key(db: None) -> Account:
    return adding.add_secret("api_key", "key", "sk-ant-api03-key", by="ada")


def told(account: Account, part: float, used: float | None, name: str = "5h") -> Row:
    """Return a fact; sixty parts are a step."""
    window = Window(name, "allowed", used, RESET)
    return facts.row(account.pk, NOON + part * STEP / 60, [window])


def seen(account: Account, name: str = "5h") -> list[tuple[int, float]]:
    """Return the samples as steps after noon and utilization."""
    found = points(account.pk, name, NOON - STEP, NOON + 60 * STEP)
    return [(round((point.at - NOON) / STEP), point.utilization) for point in found]


def test_of_each_step_the_last_observation_is_kept(key: Account) -> None:
    facts.write([told(key, 1, 0.1), told(key, 59, 0.2), told(key, 30, 0.15), told(key, 61, 0.3)])

    assert points(key.pk, "5h", NOON, NOON + STEP) == [Point(NOON, 0.2, RESET, "allowed")]
    assert seen(key) == [(0, 0.2), (1, 0.3)]


ROWS = [(5, 0.1), (40, 0.2), (70, 0.3)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(len(ROWS)))))
def test_batches_in_any_order_and_twice_end_the_same(key: Account, order: tuple[int, ...]) -> None:
    for turn in order:
        facts.write([told(key, *ROWS[turn])])
    last = seen(key)
    for turn in order:
        facts.write([told(key, *ROWS[turn])])

    assert seen(key) == last
    assert last[-1] == (1, 0.3)
    # Once the next step was seen, the one before it takes the first that comes.
    assert last[0] in {(0, 0.1), (0, 0.2)}
    assert LimitWindow.objects.get().utilization == 0.3


def test_within_a_step_an_older_fact_never_wins(key: Account) -> None:
    facts.write([told(key, 40, 0.2)])
    facts.write([told(key, 5, 0.1)])

    assert seen(key) == [(0, 0.2)]


def test_a_later_fact_of_the_same_step_replaces_the_sample(key: Account) -> None:
    facts.write([told(key, 5, 0.1)])
    facts.write([told(key, 40, 0.2), told(key, 65, 0.3)])

    assert seen(key) == [(0, 0.2), (1, 0.3)]


def test_only_shares_of_a_subscription_are_samples(key: Account) -> None:
    per_minute = Window("requests", None, 0.5, RESET, 50, 25)
    unlimited = Window("tokens", None, None, RESET, None, 25)
    facts.write([facts.row(key.pk, NOON, [per_minute, unlimited, Window("7d", "allowed")])])

    assert not WindowSample.objects.exists()
    stored = LimitWindow.objects.get(name="requests")
    assert (stored.limit, stored.remaining, stored.utilization) == (50, 25, 0.5)


def test_counts_that_grow_again_replace_those_before(key: Account) -> None:
    for seconds, remaining in ((0, 0), (1, 49)):
        window = Window("requests", None, 1 - remaining / 50, RESET, 50, remaining)
        facts.write([facts.row(key.pk, NOON + timedelta(seconds=seconds), [window])])

    assert LimitWindow.objects.get().remaining == 49


def test_what_was_learnt_without_a_use_is_no_use(key: Account) -> None:
    fact = facts.row(key.pk, NOON, [Window("5h", "allowed", 0.5, RESET)], used=False)

    facts.write([fact])

    key.refresh_from_db()
    assert key.last_used_at is None
    assert seen(key) == [(0, 0.5)]


def test_facts_written_before_this_version_are_read(key: Account) -> None:
    fact = told(key, 0, 0.5)
    del fact["used"]
    for window in fact["windows"]:
        del window["limit"], window["remaining"]

    facts.write([fact])

    key.refresh_from_db()
    assert key.last_used_at == NOON
    assert seen(key) == [(0, 0.5)]


def test_samples_are_deleted_after_two_weeks(key: Account) -> None:
    old = NOON - KEPT
    WindowSample.objects.bulk_create(
        WindowSample(account=key, name="5h", at=old + count * STEP, utilization=0.5)
        for count in range(-BATCH - 1, 2)
    )

    assert prune(NOON) == BATCH + 1

    assert [sample.at for sample in WindowSample.objects.order_by("at")] == [old, old + STEP]
    assert prune(NOON) == 0


@pytest.mark.parametrize(
    ("name", "minutes", "begins"),
    [("5h", 4.9, 0), ("5h", 5, 5), ("7d", 29.9, 0), ("7d_oi", 30, 30)],
)
def test_weekly_windows_have_longer_steps(name: str, minutes: float, begins: int) -> None:
    at = NOON + timedelta(minutes=minutes)

    assert series.step(name, at) == NOON + timedelta(minutes=begins)
