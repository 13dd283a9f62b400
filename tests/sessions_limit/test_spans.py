"""Days, weeks and months of budgets: by the calendar and the clocks of the key's own zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from sessions_limit.keys import PERIODS, Period
from sessions_limit.spans import span
from usage import periods

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "America/St_Johns",
    "America/Havana",
    "Africa/Cairo",
    "Pacific/Kiritimati",
    "Pacific/Niue",
)


@pytest.mark.parametrize(
    ("period", "now", "zone", "start", "end"),
    [
        # A day of Berlin is 24 hours, or 23 or 25 when the clocks change.
        ("day", "2026-11-20T22:59:59Z", "Europe/Berlin", "2026-11-19T23:00Z", "2026-11-20T23:00Z"),
        ("day", "2026-11-20T23:00:00Z", "Europe/Berlin", "2026-11-20T23:00Z", "2026-11-21T23:00Z"),
        ("day", "2026-03-29T12:00:00Z", "Europe/Berlin", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),
        ("day", "2026-10-25T12:00:00Z", "Europe/Berlin", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),
        # Zones that lie half an hour, or three quarters, from the full one.
        ("day", "2026-11-20T18:29:59Z", "Asia/Kolkata", "2026-11-19T18:30Z", "2026-11-20T18:30Z"),
        ("day", "2026-11-20T18:15:00Z", "Asia/Kathmandu", "2026-11-20T18:15Z", "2026-11-21T18:15Z"),
        (
            "day",
            "2026-04-04T15:00Z",
            "Australia/Lord_Howe",
            "2026-04-04T13:00Z",
            "2026-04-05T13:30Z",
        ),
        # At midnight the clocks of Cairo are put forward, and those of Havana an hour later back.
        ("day", "2026-04-24T12:00:00Z", "Africa/Cairo", "2026-04-23T22:00Z", "2026-04-24T21:00Z"),
        ("day", "2026-11-01T05:30:00Z", "America/Havana", "2026-11-01T04:00Z", "2026-11-02T05:00Z"),
        # Weeks begin on Mondays, also over the end of a year.
        ("week", "2026-11-22T23:59:59Z", "UTC", "2026-11-16T00:00Z", "2026-11-23T00:00Z"),
        ("week", "2026-11-23T00:00:00Z", "UTC", "2026-11-23T00:00Z", "2026-11-30T00:00Z"),
        ("week", "2027-01-01T12:00:00Z", "UTC", "2026-12-28T00:00Z", "2027-01-04T00:00Z"),
        ("week", "2026-03-27T12:00:00Z", "Europe/Berlin", "2026-03-22T23:00Z", "2026-03-29T22:00Z"),
        # Months, also the short ones and those with a leap day.
        ("month", "2026-11-30T23:59:59Z", "UTC", "2026-11-01T00:00Z", "2026-12-01T00:00Z"),
        ("month", "2026-12-15T12:00:00Z", "UTC", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        ("month", "2028-02-29T12:00:00Z", "UTC", "2028-02-01T00:00Z", "2028-03-01T00:00Z"),
        ("month", "2027-02-28T12:00:00Z", "UTC", "2027-02-01T00:00Z", "2027-03-01T00:00Z"),
        ("month", "2026-10-31T22:59Z", "Europe/Berlin", "2026-09-30T22:00Z", "2026-10-31T23:00Z"),
        (
            "month",
            "2026-01-31T10:00Z",
            "Pacific/Kiritimati",
            "2026-01-31T10:00Z",
            "2026-02-28T10:00Z",
        ),
        # A zone that nobody knows any more is UTC.
        ("day", "2026-11-20T12:00:00Z", "Mars/Base", "2026-11-20T00:00Z", "2026-11-21T00:00Z"),
    ],
)
def test_a_span_is_that_of_the_zones_calendar(
    period: Period, now: str, zone: str, start: str, end: str
) -> None:
    found = span(period, datetime.fromisoformat(now), zone)

    assert found.start == datetime.fromisoformat(start)
    assert found.end == datetime.fromisoformat(end)


@given(
    st.datetimes(datetime(2012, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(PERIODS),
    st.sampled_from(ZONES),
)
@limits(max_examples=150, deadline=None)
def test_spans_follow_each_other_and_hold_their_moments(
    now: datetime, period: Period, zone: str
) -> None:
    found = span(period, now, zone)

    assert found.start <= now < found.end
    assert span(period, found.end, zone).start == found.end
    assert span(period, found.end - timedelta(seconds=1), zone) == found
    assert found.end.astimezone(ZoneInfo(zone)).hour in (0, 1)


@given(st.datetimes(datetime(2012, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)))
@limits(max_examples=50, deadline=None)
def test_spans_are_made_of_whole_quarters_of_an_hour(now: datetime) -> None:
    # So that they are exactly the sums of their periods.
    for zone in ZONES:
        for period in PERIODS:
            start = span(period, now, zone).start
            assert periods.start(periods.of(start)) == start
