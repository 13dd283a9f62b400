"""What somebody asks, in texts of an address, a form or a command line, as a question."""

from __future__ import annotations

import functools
import zoneinfo
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.utils import timezone

from usage.groupings import NUMBERS
from usage.reports import BadReport, Question

WEEK = timedelta(days=7)
LONGEST_TEXT, LARGEST = 128, 2**63 - 1
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def question(
    metric: str = "requests",
    group: str = "day",
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    zone: str = "UTC",
    filters: Mapping[str, str | int | None] | None = None,
    now: datetime | None = None,
) -> Question:
    """Return the question; the last seven days unless told. Raise BadReport for bad values.

    A filter that is None or empty filters nothing.
    """
    until = _within("until", until or now or timezone.now())
    since = _within("since", since or until - WEEK)
    given = {name: value for name, value in (filters or {}).items() if value not in (None, "")}
    known = {name: _value(name, value) for name, value in given.items()}
    return Question(metric, group, since, until, zone_named(zone), known)


def zone_named(name: str) -> ZoneInfo:
    """Return a time zone; raise BadReport for a name that is none."""
    # Only what is listed: a name is a path to the library that reads it.
    if name not in zones():
        raise BadReport("zone", "There is no such time zone; they are named like Europe/Berlin.")
    return ZoneInfo(name)


@functools.cache
def zones() -> frozenset[str]:
    """Return the names of all time zones."""
    return frozenset(zoneinfo.available_timezones() | {"UTC"})


def moment(text: str, zone: ZoneInfo, field: str) -> datetime:
    """Return a time given as a day of the zone or in ISO 8601; raise BadReport for others."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadReport(field, "Give a day like 2026-11-20 or a time in ISO 8601.") from None
    return found.replace(tzinfo=zone) if found.tzinfo is None else found


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return when a day of the zone begins."""
    return datetime.combine(day, time(), zone)


def _within(name: str, moment: datetime) -> datetime:
    if not EARLIEST <= moment <= LATEST:
        raise BadReport(name, "Give a time between the years 2000 and 2100.")
    return moment


def _value(name: str, value: str | int | None) -> str | int:
    text = str(value)
    if name in NUMBERS:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= LARGEST):
            raise BadReport(name, "This is a number.")
        return int(text)
    if len(text) > LONGEST_TEXT or "\0" in text:
        raise BadReport(name, "This is too long.")
    return text
