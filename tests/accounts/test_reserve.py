"""What an account keeps for its owner: headroom, and money."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from accounts.reserve import leaves, paid_until, withheld
from providers.base import Window

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def window(name: str, used: float | None, hours: float | None = 2, status: str = "") -> Window:
    return Window(name, status or None, used, None if hours is None else NOW + hours * HOUR)


@pytest.mark.parametrize(
    ("windows", "leave_at", "hours", "why"),
    [
        ([window("5h", 0.9)], 0.9, 2, "headroom (5h)"),
        ([window("5h", 0.3 * 3 - 1e-12)], 0.9, 2, "headroom (5h)"),
        ([window("5h", 1.01)], 1.0, 2, "headroom (5h)"),
        ([window("5h", 0.95), window("7d", 0.95, 50)], 0.9, 50, "headroom (7d)"),
        ([window("5h", 0.95, 60), window("7d", 0.95, 50)], 0.9, 60, "headroom (5h)"),
        ([window("5h", 0.95), window("7d", 0.1, 50)], 0.9, 2, "headroom (5h)"),
        ([window("7d", 0.95, None)], 0.9, 1, "headroom (7d)"),
    ],
)
def test_it_leaves_until_the_last_window_over_the_line_begins_afresh(
    windows: list[Window], leave_at: float, hours: float, why: str
) -> None:
    left = leaves(windows, leave_at=leave_at, never_overage=True, overage_in_use=False, now=NOW)

    assert left == (NOW + hours * HOUR, why)


@pytest.mark.parametrize(
    ("windows", "leave_at"),
    [
        ([window("5h", 0.89)], 0.9),
        ([window("5h", 1.0, status="rejected")], None),
        ([window("5h", None)], 0.9),
        ([window("5h", 0.95, -1)], 0.9),
        ([window("7d_oi", 0.95), window("overage", 0.95)], 0.9),
        ([], 0.9),
    ],
)
def test_it_stays_below_the_line_or_without_one(
    windows: list[Window], leave_at: float | None
) -> None:
    kept = leaves(windows, leave_at=leave_at, never_overage=True, overage_in_use=False, now=NOW)

    assert kept is None


@pytest.mark.parametrize(
    ("windows", "hours", "why"),
    [
        ([window("5h", 1.0)], 2, "overage (5h)"),
        ([window("5h", 0.4, status="rejected")], 2, "overage (5h)"),
        ([window("5h", 1.0), window("7d", 1.0, 50)], 50, "overage (7d)"),
        ([window("5h", 1.0), window("7d", 0.9, 50)], 2, "overage (5h)"),
        ([window("5h", 1.0, None)], 1, "overage (5h)"),
        ([window("5h", 1.0), window("7d_oi", 1.0, 90)], 2, "overage (5h)"),
        ([window("5h", 0.4)], 9, "overage"),
        ([window("5h", 0.4), window("overage", 1.0)], 9, "overage"),
        ([], 9, "overage"),
    ],
)
def test_an_account_that_must_not_cost_extra_leaves_until_its_plan_serves_again(
    windows: list[Window], hours: float, why: str
) -> None:
    told = {"leave_at": None, "overage_in_use": True, "now": NOW, "reset_at": NOW + 9 * HOUR}

    assert leaves(windows, never_overage=True, **told) == (NOW + hours * HOUR, why)
    assert leaves(windows, never_overage=False, **told) is None


def test_of_money_whose_window_nobody_names_it_stays_away_an_hour() -> None:
    assert paid_until([], NOW) == (NOW + HOUR, "overage")


def test_of_both_the_later_counts_and_money_first() -> None:
    told = {"leave_at": 0.9, "never_overage": True, "overage_in_use": True, "now": NOW}

    assert leaves([window("5h", 1.0)], **told) == (NOW + 2 * HOUR, "overage (5h)")
    both = [window("5h", 1.0), window("7d", 0.95, 50)]
    assert leaves(both, **told) == (NOW + 50 * HOUR, "headroom (7d)")


def test_the_window_of_a_family_withholds_the_family_alone() -> None:
    windows = [window("5h", 0.95), window("7d_oi", 0.95, 50), window("7d_opus", 0.1)]
    windows.append(window("overage", 1.0))
    told = {"leave_at": 0.9, "never_overage": True, "overage_in_use": False, "now": NOW}

    assert withheld(windows, **told) == {"7d_oi": NOW + 50 * HOUR}


@pytest.mark.parametrize("never_overage", [True, False])
def test_a_family_that_is_paid_for_leaves_the_account_in_the_pool(never_overage: bool) -> None:
    windows = [window("5h", 0.2), window("7d_oi", 1.0, 50, "rejected")]
    told = {"leave_at": None, "overage_in_use": True, "now": NOW}

    assert leaves(windows, never_overage=never_overage, **told) is None
    assert bool(withheld(windows, never_overage=never_overage, **told)) is never_overage
    assert paid_until(windows, NOW) is None
