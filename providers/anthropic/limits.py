"""Read Anthropic's rate-limit headers; every one may be absent, odd or hostile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from providers.anthropic import classic, values
from providers.base import Limits, Window

PREFIX = "anthropic-ratelimit-unified-"
WINDOW = re.compile(r"anthropic-ratelimit-unified-([a-z0-9_]{1,32})-(status|reset|utilization)")
OVERAGE = "overage"
NOT_WINDOWS = (OVERAGE, "grace", "fallback")
# Four are known; an upstream that invents names must not fill the database with them.
MOST_WINDOWS = 16
# Date has whole seconds and travels; less than this is no difference between two clocks.
NOTICEABLE_SKEW = timedelta(seconds=5)
# A clock that is further off is not believed: it would turn every reset into nonsense.
CREDIBLE_SKEW = timedelta(days=1)


def read(headers: Mapping[str, str], now: datetime) -> Limits:
    """Return what the headers (lower-case names) say, in the relay's own time.

    Resets in the past are dropped, others are 1 second to 8 days ahead; an unreadable value counts
    as absent.
    """
    skew = skew_of(headers.get("date"), now)
    names = {match[1] for match in map(WINDOW.fullmatch, headers) if match}
    counted = sorted(names.difference(NOT_WINDOWS))[:MOST_WINDOWS]
    per_minute = classic.read(headers, now, skew)
    return Limits(
        status=headers.get(PREFIX + "status") or None,
        reset_at=values.moment(headers.get(PREFIX + "reset"), now, skew),
        retry_after=retry_after(headers.get("retry-after"), now, skew),
        windows=tuple(_window(name, headers, now, skew) for name in counted),
        classic=per_minute,
        overage=_window(OVERAGE, headers, now, skew) if OVERAGE in names else None,
        overage_in_use=headers.get(PREFIX + "overage-in-use", "").strip().lower() == "true",
        classic_spent_until=classic.spent_until(per_minute),
    )


def retry_after(value: str | None, now: datetime, skew: timedelta = timedelta(0)) -> float | None:
    """Return the seconds of a `retry-after` header: whole seconds, or until an HTTP date."""
    number = values.number(value)
    if number is None:
        moment = values.http_date(value)
        number = (moment - now + skew).total_seconds() if moment else None
    if number is None or number <= 0:
        return None
    return max(values.SHORTEST.total_seconds(), min(number, values.LONGEST.total_seconds()))


def skew_of(date: str | None, now: datetime) -> timedelta:
    """Return how far the relay's clock is ahead of an answer's `date` header, where that counts."""
    moment = values.http_date(date)
    skew = now - moment if moment else timedelta(0)
    return skew if NOTICEABLE_SKEW < abs(skew) <= CREDIBLE_SKEW else timedelta(0)


def _window(name: str, headers: Mapping[str, str], now: datetime, skew: timedelta) -> Window:
    return Window(
        name=name,
        status=headers.get(f"{PREFIX}{name}-status") or None,
        utilization=values.fraction(headers.get(f"{PREFIX}{name}-utilization")),
        reset_at=values.moment(headers.get(f"{PREFIX}{name}-reset"), now, skew),
    )
