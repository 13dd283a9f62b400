"""Read what Anthropic's usage endpoint tells about an account's windows; all of it may be hostile.

The one trap: numbers are percentages (0-100) there and fractions (0-1) in an answer's headers. They
become fractions here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from providers.anthropic import values
from providers.base import Window

# How the windows were given before there was a list of limits.
OLDER = {
    "five_hour": "5h",
    "seven_day": "7d",
    "seven_day_opus": "7d_opus",
    "seven_day_sonnet": "7d_sonnet",
}
KINDS = {"session": "5h", "weekly_all": "7d"}
# What the headers call the windows of these families; others are named by themselves.
FAMILIES = {"fable": "7d_oi", "opus": "7d_opus", "sonnet": "7d_sonnet"}
WORD = re.compile(r"[a-z0-9]+")
LONGEST_NAME, MOST_WINDOWS = 24, 16
MOST_PERCENT = 1000
WARNINGS = frozenset({"warning", "critical"})


def read(
    data: Mapping[str, object], now: datetime, skew: timedelta = timedelta(0)
) -> tuple[Window, ...]:
    """Return the windows that an answer tells, each name once; one it does not tell is absent.

    `skew` is how far the relay's clock is ahead. Paid extra usage is the window "overage", given
    only where the owner has switched it on.
    """
    found: dict[str, Window] = {}
    for name, told, percent in (*_listed(data), *_older(data), *_extra(data)):
        used = _fraction(percent)
        if used is None or name in found or len(found) == MOST_WINDOWS:
            continue
        resets_at = told.get("resets_at")
        reset_at = values.moment(resets_at, now, skew) if isinstance(resets_at, str) else None
        found[name] = Window(name, _status(used, told), used, reset_at)
    return tuple(found.values())


Told = tuple[str, Mapping[str, object], object]


def _listed(data: Mapping[str, object]) -> Iterator[Told]:
    listed = data.get("limits")
    for told in listed[: 4 * MOST_WINDOWS] if isinstance(listed, list) else ():
        if not isinstance(told, dict):
            continue
        kind = told.get("kind")
        name = KINDS.get(kind, "") if isinstance(kind, str) else ""
        if kind == "weekly_scoped":
            name = _family(told.get("scope"))
        if name:
            yield name, told, told.get("percent")


def _older(data: Mapping[str, object]) -> Iterator[Told]:
    for key, name in OLDER.items():
        told = _part(data, key)
        yield name, told, told.get("utilization")


def _extra(data: Mapping[str, object]) -> Iterator[Told]:
    told = _part(data, "extra_usage")
    if told.get("is_enabled") is True:
        yield "overage", told, told.get("utilization")


def _family(scope: object) -> str:
    """Name the window of a model family; one that counts for more than a model has no name."""
    if not isinstance(scope, dict) or scope.get("surface") is not None:
        return ""
    name = _part(scope, "model").get("display_name")
    words = WORD.findall(name.lower()[:100]) if isinstance(name, str) else []
    known = (FAMILIES[word] for word in words if word in FAMILIES)
    return next(known, f"7d_{'_'.join(words)[:LONGEST_NAME]}" if words else "")


def _status(used: float, told: Mapping[str, object]) -> str:
    if used >= 1:
        return "rejected"
    severity = told.get("severity")
    is_warned = isinstance(severity, str) and severity in WARNINGS
    return "allowed_warning" if is_warned else "allowed"


def _fraction(percent: object) -> float | None:
    if isinstance(percent, bool) or not isinstance(percent, int | float):
        return None
    return percent / 100 if 0 <= percent <= MOST_PERCENT else None


def _part(data: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = data.get(name)
    return part if isinstance(part, dict) else {}
