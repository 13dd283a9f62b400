"""What this process itself holds against accounts: holds by model family, and penalties."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from relay.bench import PENALTIES, REMEMBERED, Bench, family

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
OPUS, OLD_OPUS, SONNET = "claude-opus-5-5", "claude-3-opus-20240229", "claude-sonnet-5"


@pytest.mark.parametrize(
    ("model", "name"),
    [(OPUS, "opus"), (OLD_OPUS, "opus"), (SONNET, "sonnet"), ("other-1", "other-1"), ("", "")],
)
def test_a_model_counts_against_its_family(model: str, name: str) -> None:
    assert family(model) == name


def test_a_hold_keeps_an_account_out_until_its_end() -> None:
    bench = Bench()
    bench.hold(1, LATER)

    assert bench.held_until(1, OPUS, NOW) == LATER
    assert bench.held_until(1, OPUS, LATER) is None
    assert bench.held_until(2, OPUS, NOW) is None


def test_a_hold_for_one_family_leaves_the_others_alone() -> None:
    bench = Bench()
    bench.hold(1, LATER, OPUS)

    assert bench.held_until(1, OLD_OPUS, NOW) == LATER
    assert bench.held_until(1, SONNET, NOW) is None


def test_of_an_account_that_is_held_for_a_moment_it_is_known_when_it_is_really_back() -> None:
    bench = Bench()
    hours = NOW + timedelta(hours=3)
    bench.hold(1, NOW + timedelta(seconds=5), now=NOW)
    bench.foretell(1, hours, NOW)

    assert bench.returns_at(1, OPUS, NOW) == hours
    assert bench.held_until(1, OPUS, NOW) == NOW + timedelta(seconds=5)
    assert bench.returns_at(1, OPUS, NOW + timedelta(seconds=5)) is None
    # Held for its family only, or again much later: that is another story.
    bench.hold(1, LATER, OPUS, now=NOW)
    assert bench.returns_at(1, OPUS, NOW + timedelta(seconds=6)) == LATER
    bench.hold(1, LATER, now=NOW)
    assert bench.returns_at(1, OPUS, NOW + timedelta(seconds=61)) == LATER


def test_a_hold_only_ever_grows() -> None:
    bench = Bench()
    bench.hold(1, LATER)
    bench.hold(1, NOW + timedelta(seconds=1))
    bench.hold(1, LATER - timedelta(seconds=1), OPUS)

    assert bench.held_until(1, OPUS, NOW) == LATER


def test_a_penalty_grows_once_per_window_and_ends_at_five_minutes() -> None:
    bench, now = Bench(), NOW

    for seconds in (*PENALTIES, PENALTIES[-1]):
        for _ in range(10):
            bench.penalise(1, now)
        assert bench.is_penalised(1, now + timedelta(seconds=seconds - 0.001))
        now += timedelta(seconds=seconds)
        assert not bench.is_penalised(1, now)


def test_an_account_that_serves_is_forgiven() -> None:
    bench = Bench()
    bench.penalise(1, NOW)
    bench.penalise(1, NOW + timedelta(seconds=5))

    bench.forgive(1)
    assert not bench.is_penalised(1, NOW)

    bench.penalise(1, NOW)
    assert not bench.is_penalised(1, NOW + timedelta(seconds=PENALTIES[0]))


def test_invented_models_that_are_refused_fill_no_memory() -> None:
    bench = Bench()

    for number in range(REMEMBERED + 10):
        bench.lacks(1, f"invented-{number}", NOW)
    bench.lacks(1, "claude-opus-5-5", NOW + timedelta(hours=2))

    assert len(bench._lacks) <= REMEMBERED
    assert bench.is_lacking(1, "claude-opus-5-5", NOW + timedelta(hours=2))


def test_holds_and_deferrals_of_many_models_fill_no_memory() -> None:
    bench, much_later = Bench(), LATER + timedelta(hours=1)

    for number in range(REMEMBERED + 10):
        bench.hold(1, LATER, f"invented-{number}", NOW)
        bench.defer(1, LATER, f"invented-{number}", NOW)
    bench.hold(2, LATER, now=NOW)
    bench.defer(2, LATER, now=NOW)

    assert len(bench._holds) <= REMEMBERED + 1
    assert len(bench._deferrals) <= REMEMBERED + 1
    # Whole accounts find a place even then.
    assert bench.held_until(2, OPUS, NOW) == LATER
    assert bench.is_deferred(2, OPUS, NOW)
    bench.hold(3, much_later, OPUS, LATER)
    bench.defer(3, much_later, OPUS, LATER)
    assert (len(bench._holds), len(bench._deferrals)) == (1, 1)


def test_a_deferral_ends_by_itself_and_may_be_of_one_family() -> None:
    bench = Bench()
    bench.defer(1, LATER)
    bench.defer(1, NOW + timedelta(seconds=1))
    bench.defer(2, LATER, OPUS)

    assert bench.is_deferred(1, SONNET, NOW)
    assert bench.is_deferred(2, OLD_OPUS, NOW)
    assert not bench.is_deferred(2, SONNET, NOW)
    assert not bench.is_deferred(1, SONNET, LATER)
    assert bench.held_until(1, OPUS, NOW) is None


def test_what_is_cleared_is_no_longer_deferred() -> None:
    bench = Bench()
    bench.defer(1, LATER)
    bench.defer(2, LATER)

    bench.clear(1)

    assert not bench.is_deferred(1, OPUS, NOW)
    assert bench.is_deferred(2, OPUS, NOW)
