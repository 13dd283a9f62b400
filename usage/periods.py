"""Time in quarters of an hour since 1970, and the days and hours of a zone made of them; pure.

The offsets of all zones have been whole quarters of an hour since 1972, so a day of Kathmandu
(+5:45) is a number of whole quarters too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

SECONDS = 900
LENGTHS = {"hour": 4, "day": 96}
# No zone changes its offset twice within so many quarters.
STEP = 48
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Segment:
    """The periods from `first` to before `end`, in which the zone is `offset` periods from UTC."""

    first: int
    end: int
    offset: int


def of(moment: datetime) -> int:
    """Return the period that a moment is in."""
    return int(moment.timestamp() // SECONDS)


def after(moment: datetime) -> int:
    """Return the first period that begins at a moment or later."""
    return int(-(-moment.timestamp() // SECONDS))


def start(period: int) -> datetime:
    """Return when a period begins."""
    return datetime.fromtimestamp(period * SECONDS, UTC)


def segments(first: int, end: int, zone: ZoneInfo) -> Iterator[Segment]:
    """Yield the parts of a range in which the zone's distance from UTC stays what it is."""
    while first < end:
        offset = _offset(first, zone)
        same, other = first, first + STEP
        while other < end and _offset(other, zone) == offset:
            same, other = other, other + STEP
        around = range(same, min(other, end))
        until = same + bisect_left(around, True, key=lambda one: _offset(one, zone) != offset)
        yield Segment(first, until, offset)
        first = until


def label(number: int, offset: int, unit: str) -> str:
    """Return the name of a unit of local time, by its number since 1970.

    An hour is named with its distance from UTC, as the one between summer and winter comes twice;
    a week by its Monday.
    """
    if unit == "hour":
        moment = start(number * LENGTHS["hour"])
        sign, minutes = "+-"[offset < 0], abs(offset) * 15
        return f"{moment:%Y-%m-%dT%H:%M}{sign}{minutes // 60:02}:{minutes % 60:02}"
    day = EPOCH + timedelta(days=number)
    if unit == "week":
        day -= timedelta(days=day.weekday())
    return day.isoformat()[: 7 if unit == "month" else 10]


def length(unit: str) -> int:
    """Return of how many periods the pieces are that a unit is put together from."""
    return LENGTHS.get(unit, LENGTHS["day"])


def labels(parts: list[Segment], unit: str) -> list[str]:
    """Return the names of all units of a range, in their order."""
    size = length(unit)
    found: dict[str, None] = {}
    for part in parts:
        last = (part.end - 1 + part.offset) // size
        for number in range((part.first + part.offset) // size, last + 1):
            found[label(number, part.offset, unit)] = None
    return list(found)


def _offset(period: int, zone: ZoneInfo) -> int:
    distance = start(period).astimezone(zone).utcoffset() or timedelta()
    return int(distance.total_seconds()) // SECONDS
