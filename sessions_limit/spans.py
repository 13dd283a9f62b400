"""The day, week or month that a moment is in, by the calendar and the clocks of a zone; pure."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo

Period = Literal["day", "week", "month"]


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` to before `end`, both in UTC."""

    start: datetime
    end: datetime

    def holds(self, moment: datetime) -> bool:
        """Tell whether a moment is in it."""
        return self.start <= moment < self.end


def span(period: Period, now: datetime, zone: str) -> Span:
    """Return the day, the week from its Monday or the month that `now` is in.

    A day begins at its first moment: where clocks are put forward at midnight, that is one o'clock,
    and where the hour after midnight comes twice, it is the first of the two.
    """
    where = named(zone)
    today = now.astimezone(where).date()
    match period:
        case "day":
            first, after = today, today + timedelta(days=1)
        case "week":
            first = today - timedelta(days=today.weekday())
            after = first + timedelta(days=7)
        case "month":
            first = today.replace(day=1)
            after = (first + timedelta(days=31)).replace(day=1)
    return Span(_begin(first, where), _begin(after, where))


@functools.lru_cache(maxsize=1024)
def named(zone: str) -> tzinfo:
    """Return a zone by its name; UTC for one that is not known (any more)."""
    try:
        return ZoneInfo(zone)
    except (OSError, ValueError, LookupError):
        return UTC


def _begin(day: date, where: tzinfo) -> datetime:
    # A midnight that is skipped is the moment at which it is.
    return datetime.combine(day, time(), where).astimezone(UTC)
