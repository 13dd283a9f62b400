"""How fast windows are used up, when they run out, and what the pool has left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts.forecast import POOLED, Burn, Sample, Share, burn, pool, size, used_now

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SOON, FRIDAY = NOW + 2 * HOUR, NOW + 3 * DAY


def five(*points: tuple[float, float], reset: datetime = SOON) -> list[Sample]:
    """Samples of the 5-hour window: (minutes ago, utilization)."""
    return [Sample(NOW - ago * MINUTE, used, reset) for ago, used in points]


def told(samples: list[Sample], name: str = "5h") -> tuple[float, float | None] | None:
    """The rate, and the minutes until it runs out."""
    found = burn(name, samples, NOW)
    if found is None:
        return None
    end = found.runs_out_at and (found.runs_out_at - NOW) / MINUTE
    return pytest.approx(found.rate_per_hour), end and pytest.approx(end)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        # The last hour counts, not the quiet time before.
        (five((170, 0.1), (60, 0.2), (30, 0.4), (0, 0.6)), (0.4, 60)),
        # It slows down when the use stops.
        (five((60, 0.2), (50, 0.5), (0, 0.5)), (0.3, 100)),
        # It begins within the hour: from what held when the hour began.
        (five((70, 0.4), (10, 0.6), (0, 0.75)), (0.3, 50)),
        (five((30, 0.5), (0, 0.6)), (0.2, None)),
        # Nothing seen for an hour: the mean since the window began, three hours ago.
        (five((120, 0.5), (100, 0.6)), (0.2, None)),
        (five((170, 0.2), (90, 0.9)), (0.3, 20)),
        # A moment's work says nothing of an hour; the window's mean does.
        (five((2, 0.58), (0, 0.6)), (0.2, None)),
        # Spent already.
        (five((60, 0.5), (0, 1.0)), (0.5, None)),
        (five((60, 0.5), (0, 1.2)), (0.7, None)),
    ],
)
def test_the_rate_is_that_of_the_last_hour(
    samples: list[Sample], expected: tuple[float, float | None]
) -> None:
    assert told(samples) == expected


@pytest.mark.parametrize(
    "samples",
    [
        [],
        five((10, 0.4)),
        five((60, 0.4), (0, 0.4)),
        five((60, 0.44), (0, 0.4)),
        five((60, 0.4), (0, 0.9), reset=NOW - MINUTE),
        [Sample(NOW - HOUR, 0.1), Sample(NOW, 0.5)],
        [Sample(NOW + MINUTE, 0.1, SOON), Sample(NOW + HOUR, 0.5, SOON)],
    ],
    ids=["none", "one", "flat", "falling", "over", "no reset", "to come"],
)
def test_where_nothing_burns_nothing_is_foretold(samples: list[Sample]) -> None:
    assert burn("5h", samples, NOW) is None


def test_only_the_windows_of_a_plan_are_foretold() -> None:
    samples = five((60, 0.2), (0, 0.6))

    assert burn("overage", samples, NOW) is None
    assert burn("requests", samples, NOW) is None


def test_a_weekly_window_looks_at_the_last_day() -> None:
    points = ((5 * DAY, 0.0), (DAY, 0.25), (6 * HOUR, 0.45), (0 * HOUR, 0.5))
    samples = [Sample(NOW - ago, used, FRIDAY) for ago, used in points]

    for name in ("7d", "7d_oi"):
        found = burn(name, samples, NOW)
        assert found is not None
        assert found.rate_per_hour * 24 == pytest.approx(0.25)
        assert found.runs_out_at == NOW + 2 * DAY


def test_the_window_before_a_reset_does_not_count() -> None:
    before = five((240, 0.5), (181, 0.95), reset=SOON - 5 * HOUR)

    assert told([*before, *five((60, 0.2), (0, 0.4))]) == (0.2, None)
    # All that is left was seen of the new one, and too little of it.
    assert told([*before, *five((0, 0.4))]) is None


def test_a_reset_that_is_told_differently_each_time_is_one() -> None:
    moved = [
        Sample(sample.at, sample.utilization, SOON + jitter * timedelta(seconds=40))
        for sample, jitter in zip(
            five((60, 0.2), (40, 0.3), (20, 0.4), (0, 0.5)), (-2, 3, 1, 0), strict=True
        )
    ]

    assert told(moved) == (0.3, 100)


def test_a_window_reset_ahead_of_time_begins_anew() -> None:
    fallen = five((150, 0.5), (80, 0.9), (50, 0.0), (20, 0.1), (0, 0.25))

    assert told(fallen) == (0.3, None)
    assert told(five((80, 0.9), (70, 0.95), (5, 0.02), (4, 0.03), (0, 0.05))) is None


def test_a_single_odd_value_changes_nothing() -> None:
    even = five((60, 0.2), (45, 0.25), (30, 0.3), (15, 0.35), (0, 0.4))
    for place in (1, 2, 3):
        for odd in (0.0, 1.5):
            samples = list(even)
            samples[place] = Sample(even[place].at, odd, SOON)
            assert told(samples) == (0.2, None)


SHARES = st.floats(0, 2)
MOMENTS = st.integers(-500, 11_000).map(lambda minutes: NOW + minutes * MINUTE)
RESETS = st.sampled_from([SOON, SOON, SOON + MINUTE, FRIDAY, FRIDAY, NOW - MINUTE, None])
SAMPLES = st.builds(
    Sample, st.integers(-9, 299).map(lambda ago: NOW - ago * MINUTE), SHARES, RESETS | MOMENTS
)


@settings(max_examples=60)
@given(st.lists(SAMPLES, max_size=12), st.sampled_from([*POOLED, "7d_oi"]))
def test_an_end_is_never_past_and_never_after_the_reset(samples: list[Sample], name: str) -> None:
    samples.sort(key=lambda sample: sample.at)

    found = burn(name, samples, NOW)

    if found is not None and found.runs_out_at is not None:
        assert found.rate_per_hour > 0
        resets = [s.reset_at for s in samples if s.reset_at is not None and s.at <= NOW]
        assert NOW <= found.runs_out_at < max(resets)


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        ("default_claude_max_20x", 20),
        ("default_claude_max_5x", 5),
        ("default_claude_ai", 1),
        ("default_raven", 1),
        ("", 1),
        ("x", 1),
        ("max_0x", 1),
    ],
)
def test_a_plan_is_counted_by_the_end_of_its_tier(tier: str, expected: int) -> None:
    assert size(tier) == expected


def test_past_a_reset_a_window_is_unused() -> None:
    assert used_now(0.9, NOW, NOW) == 0.0
    assert used_now(0.9, NOW + MINUTE, NOW) == 0.9
    assert used_now(0.9, None, NOW) == 0.9
    assert used_now(None, SOON, NOW) is None


def test_the_pool_is_weighed_by_the_size_of_its_plans() -> None:
    shares = [Share(20, 0.5, SOON), Share(1, 0.9, SOON), Share(5, 1.3, SOON)]

    found = pool("5h", shares, NOW)

    assert found.headroom == pytest.approx(10.1)
    assert (found.of, found.unknown, found.runs_out_at) == (26, 0, None)


def test_accounts_of_which_nothing_is_known_are_counted_apart() -> None:
    found = pool("5h", [Share(20, None), Share(1, 0.25, SOON)], NOW)

    assert (found.headroom, found.of, found.unknown) == (0.75, 1, 1)


def test_a_window_whose_reset_has_passed_is_head_room() -> None:
    assert pool("5h", [Share(5, 0.9, NOW - MINUTE)], NOW).headroom == 5


def test_an_account_that_cannot_serve_now_has_no_head_room_yet() -> None:
    found = pool("5h", [Share(5, 0.2, SOON, 1.0, returns_at=NOW + HOUR), Share(1, 0.5)], NOW)

    assert (found.headroom, found.of, found.rate_per_hour) == (0.5, 6, 0.0)


@pytest.mark.parametrize(
    ("shares", "minutes"),
    [
        # 0.5 left at 0.5 an hour.
        ([Share(1, 0.5, SOON, 0.5)], 60),
        # Two burn together: 1.0 left at 1.0 an hour.
        ([Share(1, 0.5, SOON, 0.5), Share(1, 0.5, SOON, 0.5)], 60),
        # One is reset after half an hour and gives 0.9 back: 0.6 at 1.0, then 1.0 more at 1.0.
        ([Share(1, 0.9, NOW + HOUR / 2, 0.5), Share(1, 0.5, SOON, 0.5)], 90),
        # A benched one returns with 0.5 after half an hour.
        ([Share(1, 0.5, SOON, 0.5), Share(1, 0.5, SOON, returns_at=NOW + HOUR / 2)], None),
        ([Share(1, 0.5, SOON, 1.0), Share(1, 0.5, SOON, returns_at=NOW + HOUR / 4)], 60),
        # A spent one is reset too late.
        ([Share(1, 0.5, SOON, 1.0), Share(1, 1.0, SOON, returns_at=SOON)], 30),
        # The reset comes first.
        ([Share(1, 0.5, NOW + HOUR / 2, 0.5)], None),
        ([Share(1, 0.5, SOON, 0.0)], None),
        ([Share(1, 0.5, None, 5.0)], None),
        ([], None),
    ],
)
def test_the_pool_runs_out_where_no_reset_comes_before(
    shares: list[Share], minutes: float | None
) -> None:
    end = pool("5h", shares, NOW).runs_out_at

    assert (end and round((end - NOW) / MINUTE, 3)) == minutes


POOL_SHARES = st.builds(
    Share,
    st.just(3),
    st.none() | SHARES,
    st.none() | MOMENTS,
    st.floats(0, 1e6),
    st.none() | MOMENTS,
)


@settings(max_examples=60)
@given(st.lists(POOL_SHARES, max_size=8))
def test_the_pools_end_is_never_past_and_never_after_the_last_reset(shares: list[Share]) -> None:
    found = pool("7d", shares, NOW)

    assert 0 <= found.headroom <= found.of
    if found.runs_out_at is not None:
        moments = [at for s in shares for at in (s.reset_at, s.returns_at) if at is not None]
        assert NOW <= found.runs_out_at <= max(moments)


def test_a_burn_without_an_end_says_so() -> None:
    assert burn("5h", five((60, 0.1), (0, 0.2)), NOW) == Burn(pytest.approx(0.1), None)
