"""What the usage endpoint tells; every part of it may be absent, odd or hostile."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.anthropic.usage import MOST_WINDOWS, read
from providers.base import Window

NOW = datetime(2026, 8, 21, 3, tzinfo=UTC)
SESSION_END = datetime(2026, 8, 21, 6, 0, 0, 123456, tzinfo=UTC)
WEEK_END = datetime(2026, 8, 24, tzinfo=UTC)


def limit(kind: str, percent: Any, model: Any = None, **more: Any) -> dict[str, Any]:
    scope = None if model is None else {"model": {"id": None, "display_name": model}}
    given = {"kind": kind, "percent": percent, "resets_at": WEEK_END.isoformat(), "scope": scope}
    return given | more


def used(*limits: Any, **older: Any) -> dict[str, float | None]:
    data = json.loads(json.dumps({"limits": list(limits)} | older))
    return {window.name: window.utilization for window in read(data, NOW)}


def test_a_whole_answer_is_read_in_fractions() -> None:
    session = limit("session", 37, resets_at=SESSION_END.isoformat(), severity="normal")
    answer = {
        "five_hour": {"utilization": 36.0, "resets_at": None},
        "seven_day": {"utilization": 74.0, "resets_at": WEEK_END.isoformat()},
        "seven_day_opus": None,
        "iguana_necktie": {"utilization": 3.0},
        "extra_usage": {"is_enabled": False, "utilization": None},
        "limits": [
            session,
            limit("weekly_all", 74, severity="warning"),
            limit("weekly_scoped", 100, "Fable", severity="critical"),
        ],
    }

    assert read(answer, NOW) == (
        Window("5h", "allowed", 0.37, SESSION_END),
        Window("7d", "allowed_warning", 0.74, WEEK_END),
        Window("7d_oi", "rejected", 1.0, WEEK_END),
    )


def test_what_the_list_lacks_is_taken_from_the_older_keys() -> None:
    half = {"utilization": 50, "resets_at": WEEK_END.isoformat()}

    assert used(limit("session", 10), five_hour=half, seven_day=half, seven_day_opus=half) == {
        "5h": 0.1,
        "7d": 0.5,
        "7d_opus": 0.5,
    }
    assert used(seven_day_sonnet={"utilization": 0, "resets_at": None}) == {"7d_sonnet": 0.0}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Fable", "7d_oi"),
        ("Claude Fable 5", "7d_oi"),
        ("Opus", "7d_opus"),
        ("SONNET", "7d_sonnet"),
        ("Haiku 4.5", "7d_haiku_4_5"),
        ("Ж", None),
        ("", None),
        (7, None),
    ],
)
def test_the_window_of_a_family_is_called_as_in_the_headers(model: Any, name: str | None) -> None:
    assert list(used(limit("weekly_scoped", 5, model))) == ([name] if name else [])


def test_a_limit_of_more_than_a_model_has_no_name() -> None:
    cowork = {"model": {"display_name": "Opus"}, "surface": "cowork"}

    assert used(limit("weekly_scoped", 5) | {"scope": cowork}, limit("monthly_all", 5)) == {}


@pytest.mark.parametrize(
    ("percent", "fraction"),
    [(0, 0.0), (0.5, 0.005), (99.9, 0.999), (101.0, 1.01), (1000, 10.0)],
)
def test_percentages_become_fractions_once(percent: float, fraction: float) -> None:
    assert used(limit("session", percent))["5h"] == pytest.approx(fraction)


@pytest.mark.parametrize(
    "percent",
    ["37", None, True, -1, -0.01, 10**9, 10**400, float("nan"), float("inf"), [37], {"a": 1}],
)
def test_an_odd_percentage_counts_as_absent(percent: Any) -> None:
    assert used(limit("session", percent), limit("weekly_all", 5)) == {"7d": 0.05}


@pytest.mark.parametrize(
    "resets_at",
    [None, "", "soon", 1787290000, "2026-08-21T02:59:59+00:00", "2026-08-24T00:00:00", "2" * 99],
)
def test_a_reset_that_is_past_or_odd_counts_as_absent(resets_at: Any) -> None:
    assert read({"limits": [limit("session", 5, resets_at=resets_at)]}, NOW)[0].reset_at is None


def test_resets_are_told_in_the_relays_own_time() -> None:
    told = {"limits": [limit("weekly_all", 5)]}

    assert read(told, NOW, timedelta(minutes=3))[0].reset_at == WEEK_END + timedelta(minutes=3)


def test_extra_usage_is_a_window_where_it_is_switched_on() -> None:
    assert used(extra_usage={"is_enabled": True, "utilization": 12.5}) == {"overage": 0.125}
    assert used(extra_usage={"is_enabled": False, "utilization": 12.5}) == {}
    assert used(extra_usage={"is_enabled": True, "utilization": None}) == {}


def test_an_upstream_that_invents_windows_fills_no_database() -> None:
    many = [limit("weekly_scoped", 5, f"model{number}") for number in range(1000)]

    assert len(used(*many)) == MOST_WINDOWS


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "percent", "scope", "model", "display_name", "utilization"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
KEYS = st.sampled_from(["limits", "five_hour", "seven_day", "seven_day_opus", "extra_usage"])


@given(st.dictionaries(KEYS, VALUES))
def test_nothing_makes_it_fail(data: dict[str, Any]) -> None:
    assert all(0 <= (window.utilization or 0) <= 10 for window in read(data, NOW))
