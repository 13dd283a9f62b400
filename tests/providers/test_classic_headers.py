"""What an API key's answers say about its limits per minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from providers.anthropic.limits import PREFIX, read
from providers.base import Limits, Window

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def told(
    name: str, limit: str | None, remaining: str | None, reset: datetime = NOW + MINUTE
) -> dict[str, str]:
    """Return the headers of one limit; `name` is what follows "anthropic-"."""
    given = {"limit": limit, "remaining": remaining, "reset": reset.isoformat()}
    return {f"anthropic-{name}-{key}": value for key, value in given.items() if value is not None}


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("ratelimit-requests", "requests"),
        ("ratelimit-tokens", "tokens"),
        ("ratelimit-input-tokens", "input_tokens"),
        ("ratelimit-output-tokens", "output_tokens"),
        ("priority-input-tokens", "priority_input_tokens"),
        ("priority-output-tokens", "priority_output_tokens"),
        ("fast-input-tokens", "fast_input_tokens"),
        ("fast-requests", "fast_requests"),
    ],
)
def test_each_limit_is_a_window_of_counts_and_a_share(header: str, name: str) -> None:
    limits = read(told(header, "4000", "1000"), NOW)

    assert limits == Limits(classic=(Window(name, None, 0.75, NOW + MINUTE, 4000, 1000),))
    assert not limits.is_unified


@pytest.mark.parametrize(
    ("limit", "remaining", "share"),
    [
        ("50", "0", 1.0),
        ("50", "50", 0.0),
        ("50", "60", 0.0),
        ("0", "0", None),
        ("50", None, None),
        (None, "7", None),
        ("50", "-1", None),
        ("many", "7", None),
    ],
)
def test_a_share_is_known_only_of_two_counts(
    limit: str | None, remaining: str | None, share: float | None
) -> None:
    (window,) = read(told("ratelimit-requests", limit, remaining), NOW).classic

    assert window.utilization == share


@pytest.mark.parametrize(
    "headers",
    [
        told("ratelimit-requests", None, None),
        told("ratelimit-requests", "x", "\u0663"),
        told("ratelimit-unified-tokens", "5", "1"),
        told("ratelimit-images", "5", "1"),
        told("slow-tokens", "5", "1"),
    ],
)
def test_what_is_no_count_is_no_limit(headers: dict[str, str]) -> None:
    assert read(headers, NOW).classic == ()


def test_they_are_spent_until_the_last_that_is_at_zero_is_filled_again() -> None:
    soon, later = NOW + timedelta(seconds=20), NOW + timedelta(seconds=40)
    headers = (
        told("ratelimit-requests", "50", "0", soon)
        | told("ratelimit-input-tokens", None, "0", later)
        | told("ratelimit-output-tokens", "80000", "17", NOW + MINUTE)
        | told("priority-input-tokens", "900", "0", NOW + MINUTE)
        | told("fast-requests", "9", "0", NOW + MINUTE)
    )

    limits = read(headers, NOW)

    assert limits.classic_spent_until == later
    assert not limits.is_unified


def test_they_stand_beside_the_windows_of_a_subscription() -> None:
    headers = told("ratelimit-requests", "50", "1") | {f"{PREFIX}5h-utilization": "0.5"}

    limits = read(headers, NOW)

    assert [window.name for window in limits.windows] == ["5h"]
    assert [window.name for window in limits.classic] == ["requests"]
