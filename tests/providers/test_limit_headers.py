"""What the rate-limit headers of an answer say; every one may be absent, odd or hostile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from providers.anthropic.limits import MOST_WINDOWS, PREFIX, read, retry_after
from providers.anthropic.values import LONGEST
from providers.base import Limits, Window

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
HOUR = timedelta(hours=1)
DATE = "%a, %d %b %Y %H:%M:%S GMT"

SPENT = {
    f"{PREFIX}status": "rejected",
    f"{PREFIX}representative-claim": "five_hour",
    f"{PREFIX}5h-status": "rejected",
    f"{PREFIX}5h-utilization": "1.0",
    f"{PREFIX}5h-reset": "1791069000",
    f"{PREFIX}7d-status": "allowed",
    f"{PREFIX}7d-utilization": "0.3",
    f"{PREFIX}7d-reset": "1791399600",
    f"{PREFIX}overage-status": "rejected",
    f"{PREFIX}reset": "1791069000",
    "retry-after": "684",
}


def reset(value: str, **others: str) -> datetime | None:
    return read({f"{PREFIX}reset": value} | others, NOW).reset_at


def test_a_sample_of_an_answer_within_its_limits_is_read() -> None:
    now = datetime.fromtimestamp(1787280000, UTC)

    limits = read(
        {
            f"{PREFIX}status": "allowed",
            f"{PREFIX}5h-status": "allowed",
            f"{PREFIX}5h-reset": "1787289600",
            f"{PREFIX}5h-utilization": "0.86",
            f"{PREFIX}7d-status": "allowed",
            f"{PREFIX}7d-reset": "1787522400",
            f"{PREFIX}7d-utilization": "0.74",
            f"{PREFIX}representative-claim": "five_hour",
            f"{PREFIX}fallback-percentage": "0.5",
            f"{PREFIX}fallback": "available",
            f"{PREFIX}reset": "1787289600",
            f"{PREFIX}overage-disabled-reason": "out_of_credits",
            f"{PREFIX}overage-status": "rejected",
            "request-id": "req_011C",
            "server": "cloudflare",
        },
        now,
    )

    five, seven = limits.windows
    assert (five.name, five.status, five.utilization) == ("5h", "allowed", 0.86)
    assert five.reset_at == datetime.fromtimestamp(1787289600, UTC)
    assert (seven.name, seven.status, seven.utilization) == ("7d", "allowed", 0.74)
    assert limits.retry_after is None
    assert limits.classic_spent_until is None


def test_a_sample_of_a_spent_window_is_read() -> None:
    limits = read(SPENT, datetime.fromtimestamp(1791069000 - 684, UTC))

    assert {window.name: window.status for window in limits.windows} == {
        "5h": "rejected",
        "7d": "allowed",
    }
    assert limits.status == "rejected"
    assert limits.retry_after == 684
    assert limits.is_unified


def test_a_sample_of_a_spent_model_window_is_read() -> None:
    limits = read(
        {
            "x-should-retry": "true",
            f"{PREFIX}status": "rejected",
            f"{PREFIX}7d_oi-status": "rejected",
            f"{PREFIX}reset": "1787018400",
            "retry-after": "261858",
        },
        datetime.fromtimestamp(1787018400 - 261858, UTC),
    )

    assert [(window.name, window.status) for window in limits.windows] == [("7d_oi", "rejected")]
    assert limits.reset_at == datetime.fromtimestamp(1787018400, UTC)


def test_windows_count_without_the_aggregate_status() -> None:
    limits = read({f"{PREFIX}5h-utilization": "1.01"}, NOW)

    assert limits.status is None
    assert limits.is_unified
    assert limits.windows[0].utilization == 1.01
    assert limits.windows[0].status is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {f"{PREFIX}status": ""},
        {"server": "cloudflare"},
    ],
)
def test_what_is_absent_is_unknown(headers: dict[str, str]) -> None:
    assert read(headers, NOW) == Limits()
    assert not read(headers, NOW).is_unified


@pytest.mark.parametrize(
    "value",
    [
        str(EPOCH + 3600),
        str((EPOCH + 3600) * 1000),
        f" {EPOCH + 3600} ",
        (NOW + HOUR).isoformat(),
        "2026-11-20T13:00:00Z",
        "2026-11-20T15:00:00+02:00",
        (NOW + HOUR).strftime(DATE),
    ],
)
def test_a_reset_is_read_in_every_form_it_comes_in(value: str) -> None:
    assert reset(value) == NOW + HOUR


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "NaN",
        "inf",
        "-5",
        "1e10",
        f"{EPOCH + 3600}.5",
        f"{EPOCH + 3600}, {EPOCH + 7200}",
        "".join(chr(0x660 + int(digit)) for digit in str(EPOCH + 3600)),
        "9" * 18,
        "9" * 5000,
        "2026-11-20T13:00:00",
        "Fri, 20 Nov 99999999999999 13:00:00 GMT",
        "Fri, 20 Nov 2026 13:00:00 +99999999999999999",
        "Fri, \u0662\u0660 Nov 2026 13:00:00 GMT",
        str(EPOCH),
        str(EPOCH - 3600),
        "0",
    ],
)
def test_a_reset_that_is_past_or_unreadable_counts_as_absent(value: str) -> None:
    assert reset(value) is None


@pytest.mark.parametrize("ahead", [timedelta(days=9), timedelta(days=36_500)])
def test_a_reset_is_at_most_eight_days_ahead(ahead: timedelta) -> None:
    assert reset((NOW + ahead).isoformat()) == NOW + LONGEST


def test_a_reset_is_at_least_a_second_ahead() -> None:
    assert reset((NOW + timedelta(milliseconds=10)).isoformat()) == NOW + timedelta(seconds=1)


def test_the_end_of_time_is_eight_days_ahead() -> None:
    assert reset("9999-12-31T23:59:59Z", date="Fri, 20 Nov 2026 11:00:00 GMT") == NOW + LONGEST


def test_the_upstreams_clock_is_translated_into_ours() -> None:
    date = (NOW - HOUR).strftime(DATE)

    assert reset(str(EPOCH), date=date) == NOW + HOUR
    assert reset((NOW + 3 * HOUR).strftime(DATE), date=(NOW + HOUR).strftime(DATE)) == (
        NOW + 2 * HOUR
    )


def test_a_retry_after_date_is_translated_into_our_clock_too() -> None:
    headers = {"date": (NOW - HOUR).strftime(DATE), "retry-after": NOW.strftime(DATE)}

    assert read(headers, NOW).retry_after == 3600


@pytest.mark.parametrize(
    "date",
    [
        (NOW - timedelta(seconds=3)).strftime(DATE),
        "Fri, 20 Nov 1926 12:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "yesterday",
    ],
)
def test_a_clock_that_is_close_or_absurd_is_not_translated(date: str) -> None:
    assert reset(str(EPOCH + 3600), date=date) == NOW + HOUR


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1", 1),
        ("684", 684),
        ("999999999", LONGEST.total_seconds()),
        ((NOW + timedelta(seconds=90)).strftime(DATE), 90),
        ((NOW - timedelta(seconds=90)).strftime(DATE), None),
        ("0", None),
        ("-1", None),
        ("1.5", None),
        ("1, 2", None),
        ("\u0663\u0660", None),
        ("nan", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_whole_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("value", "fraction"),
    [
        ("0.86", 0.86),
        ("1.01", 1.01),
        ("0", 0.0),
        ("1", 1.0),
        ("NaN", None),
        ("-0.5", None),
        ("1e400", None),
        ("86", None),
        ("9.99", 9.99),
        ("0,5", None),
        ("\u0661", None),
        ("", None),
    ],
)
def test_utilization_is_a_plain_fraction(value: str, fraction: float | None) -> None:
    (window,) = read({f"{PREFIX}5h-utilization": value}, NOW).windows

    assert window.utilization == fraction


def test_extra_usage_is_told_beside_the_windows() -> None:
    headers = {
        f"{PREFIX}overage-status": "rejected",
        f"{PREFIX}overage-utilization": "0.4",
        f"{PREFIX}overage-reset": str(EPOCH + 3600),
        f"{PREFIX}overage-disabled-reason": "out_of_credits",
    }

    limits = read(headers, NOW)

    assert limits == Limits(overage=Window("overage", "rejected", 0.4, NOW + HOUR))
    assert not limits.is_unified


@pytest.mark.parametrize(
    ("value", "in_use"), [("true", True), (" True ", True), ("false", False), ("1", False)]
)
def test_it_tells_whether_extra_usage_paid_for_the_answer(value: str, in_use: bool) -> None:
    assert read({f"{PREFIX}overage-in-use": value}, NOW) == Limits(overage_in_use=in_use)


@pytest.mark.parametrize(
    "name",
    [
        "5h\n-status",
        "A" * 33 + "-status",
        "5h-status-status",
        "-status",
        "überfluss-status",
        "grace-5h-utilization",
        "overage-period-monthly-utilization",
    ],
)
def test_a_name_that_is_no_window_is_left_alone(name: str) -> None:
    assert read({PREFIX + name: "rejected"}, NOW).windows == ()


def test_an_upstream_that_invents_windows_is_cut_short() -> None:
    invented = {f"{PREFIX}x{number}-utilization": "0.1" for number in range(1000)}

    limits = read(invented | SPENT, datetime.fromtimestamp(1791069000 - 684, UTC))

    assert len(limits.windows) == MOST_WINDOWS
    assert {"5h", "7d"} <= {window.name for window in limits.windows}


NAMES = st.one_of(
    st.sampled_from(
        [
            *SPENT,
            "date",
            "anthropic-ratelimit-tokens-limit",
            "anthropic-ratelimit-tokens-remaining",
            "anthropic-ratelimit-tokens-reset",
            f"{PREFIX}overage-reset",
        ]
    ),
    st.text(max_size=40).map(PREFIX.__add__),
    st.text(max_size=40),
)
DIGITS = st.text(alphabet="0123456789.:-+TZ ,eGMT", max_size=40)
DATES = st.builds(
    "{}, {} {} {} {} {}".format,
    st.sampled_from(["Mon", ""]),
    st.integers(),
    st.sampled_from(["Jan", "Dec", "x"]),
    st.integers(),
    st.sampled_from(["00:00:00", "99:99", "1"]),
    st.one_of(st.just("GMT"), st.integers().map("{:+}".format)),
)


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.one_of(st.text(max_size=80), DIGITS, DATES), max_size=8))
@example({"retry-after": "Mon, 01 Jan 99999999999999 00:00:00 GMT"})
@example({f"{PREFIX}reset": "9999-12-31T23:59:59Z", "date": "Mon, 01 Jan 2024 00:00:00 GMT"})
@example({f"{PREFIX}reset": "0001-01-01T00:00:00+23:59"})
def test_no_header_whatsoever_raises(headers: dict[str, str]) -> None:
    limits = read(headers, NOW)

    windows = [*limits.windows, *limits.classic, *filter(None, [limits.overage])]
    times = [limits.reset_at, limits.classic_spent_until, *(w.reset_at for w in windows)]
    for time in filter(None, times):
        assert timedelta(seconds=1) <= time - NOW <= LONGEST
    shares = [w.utilization for w in windows if w.utilization is not None]
    assert all(0 <= share < 10 for share in shares)
    assert limits.retry_after is None or 1 <= limits.retry_after <= LONGEST.total_seconds()
