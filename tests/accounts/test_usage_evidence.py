"""What a told usage proves of an account: that its limit is over, ends earlier, or has come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from accounts.evidence import Closed, closed, earlier_end, is_over
from providers.base import Window

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
THREE, FRIDAY = NOON + timedelta(hours=3), NOON + timedelta(days=4)
Used = dict[str, float]


def told(used: Used, **resets: datetime | None) -> list[Window]:
    usual: dict[str, datetime | None] = {"5h": THREE, "7d": FRIDAY} | resets
    return [Window(name, None, share, usual.get(name)) for name, share in used.items()]


@pytest.mark.parametrize(
    ("reason", "used", "over"),
    [
        ("limit_reached (5h)", {"5h": 0.99}, True),
        ("limit_reached (5h)", {"5h": 1.0}, False),
        ("limit_reached (5h)", {"7d": 0.1}, False),
        ("limit_reached (5h)", {}, False),
        ("limit_reached (5h, 7d)", {"5h": 0.0, "7d": 0.9}, True),
        ("limit_reached (5h, 7d)", {"5h": 0.0, "7d": 1.0}, False),
        ("limit_reached (5h, 7d)", {"5h": 0.0}, False),
        # A family's spent window is not what keeps the whole account out.
        ("limit_reached (5h, 7d_oi)", {"5h": 0.0, "7d_oi": 1.0}, True),
        ("limit_reached (7d_oi)", {"7d_oi": 1.0}, False),
        ("overage (5h)", {"5h": 0.4}, True),
        ("overage (5h)", {"5h": 1.02}, False),
        ("headroom (7d)", {"7d": 0.79}, True),
        ("headroom (7d)", {"7d": 0.8}, False),
        # Not set by a window, or by none that is named.
        ("overage", {"5h": 0.0, "7d": 0.0}, False),
        ("limit_reached", {"5h": 0.0, "7d": 0.0}, False),
        ("billing", {"5h": 0.0, "7d": 0.0}, False),
        ("spend_cap (5h)", {"5h": 0.0}, False),
        ("", {"5h": 0.0}, False),
    ],
)
def test_a_limit_is_over_when_every_window_it_names_is_seen_open(
    reason: str, used: Used, over: bool
) -> None:
    assert is_over(reason, told(used), leave_at=0.8) is over


def test_a_share_that_the_owner_no_longer_keeps_holds_nothing() -> None:
    assert is_over("headroom (7d)", told({"7d": 0.9}), leave_at=None)


@pytest.mark.parametrize(
    ("reason", "used", "until", "end"),
    [
        ("limit_reached (5h)", {"5h": 1.0}, FRIDAY, THREE),
        ("limit_reached (5h)", {"5h": 1.0}, THREE + timedelta(minutes=1), None),
        ("limit_reached (5h)", {"5h": 1.0}, THREE - timedelta(hours=1), None),
        ("limit_reached (5h, 7d)", {"5h": 1.0, "7d": 1.0}, FRIDAY + timedelta(days=1), FRIDAY),
        ("limit_reached (5h, 7d)", {"5h": 1.0, "7d": 0.5}, FRIDAY, THREE),
        ("limit_reached (5h, 7d)", {"5h": 1.0}, FRIDAY, None),
        ("billing", {"5h": 1.0}, FRIDAY, None),
    ],
)
def test_the_end_of_a_limit_comes_forward_to_the_reset_that_is_told(
    reason: str, used: Used, until: datetime, end: datetime | None
) -> None:
    assert earlier_end(reason, told(used), until, leave_at=None) == end


def test_an_end_that_is_not_told_stays_as_it_is() -> None:
    windows = told({"5h": 1.0, "7d": 1.0}, **{"7d": None})

    assert earlier_end("limit_reached (5h, 7d)", windows, FRIDAY, leave_at=None) is None


@pytest.mark.parametrize(
    ("used", "leave_at", "never_overage", "expected"),
    [
        ({"5h": 0.99, "7d": 0.99}, None, True, None),
        ({"5h": 1.0}, None, True, Closed(THREE, True, "limit_reached (5h)")),
        ({"5h": 1.0, "7d": 1.01}, None, True, Closed(FRIDAY, True, "limit_reached (5h, 7d)")),
        ({"7d_oi": 1.0}, None, True, None),
        ({"5h": 0.85}, 0.8, True, Closed(THREE, False, "headroom (5h)")),
        ({"5h": 1.0}, 0.8, True, Closed(THREE, True, "limit_reached (5h)")),
        ({"5h": 1.0, "7d": 0.8}, 0.8, True, Closed(FRIDAY, False, "headroom (7d)")),
        # The owner lets it go on with paid usage, while there is some.
        ({"5h": 1.0, "overage": 0.2}, None, False, None),
        ({"5h": 1.0, "overage": 0.2}, None, True, Closed(THREE, True, "limit_reached (5h)")),
        ({"5h": 1.0, "overage": 1.0}, None, False, Closed(THREE, True, "limit_reached (5h)")),
        ({"5h": 1.0}, None, False, Closed(THREE, True, "limit_reached (5h)")),
    ],
)
def test_an_account_is_closed_by_what_is_spent_or_kept(
    used: Used, leave_at: float | None, never_overage: bool, expected: Closed | None
) -> None:
    windows = told(used)

    assert closed(windows, NOON, leave_at=leave_at, never_overage=never_overage) == expected


@pytest.mark.parametrize("reset", [None, NOON - timedelta(minutes=1)])
def test_a_spent_window_without_a_reset_to_come_closes_nothing(reset: datetime | None) -> None:
    windows = told({"5h": 1.0}, **{"5h": reset})

    assert closed(windows, NOON, leave_at=None, never_overage=True) is None
