"""Read Anthropic's rate-limit headers; every one may be absent, odd or hostile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from providers.base import Limits, Window

PREFIX = "anthropic-ratelimit-unified-"
WINDOW = re.compile(r"anthropic-ratelimit-unified-([a-z0-9_]{1,32})-(status|reset|utilization)")
CLASSIC = re.compile(r"anthropic-ratelimit-((?:input-|output-)?tokens|requests)-remaining")
NOT_WINDOWS = ("overage", "grace", "fallback")
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(days=8)
LONGEST_TEXT = 64
MILLISECONDS = 10**12
# Date has whole seconds and travels; less than this is no difference between two clocks.
NOTICEABLE_SKEW = timedelta(seconds=5)
# A clock that is further off is not believed: it would turn every reset into nonsense.
CREDIBLE_SKEW = timedelta(days=1)


def read(headers: Mapping[str, str], now: datetime) -> Limits:
    """Return what the headers (lower-case names) say, in the relay's own time.

    Resets in the past are dropped, others are 1 second to 8 days ahead; an unreadable value counts
    as absent.
    """
    skew = _skew(headers.get("date"), now)
    return Limits(
        status=headers.get(PREFIX + "status") or None,
        reset_at=_moment(headers.get(PREFIX + "reset"), now, skew),
        retry_after=retry_after(headers.get("retry-after"), now, skew),
        windows=tuple(_windows(headers, now, skew)),
        classic_spent_until=_classic(headers, now, skew),
    )


def retry_after(value: str | None, now: datetime, skew: timedelta = timedelta(0)) -> float | None:
    """Return the seconds of a `retry-after` header: whole seconds, or until an HTTP date."""
    number = _number(value)
    if number is None:
        moment = _http_date(value)
        number = (moment - now + skew).total_seconds() if moment else None
    if number is None or number <= 0:
        return None
    return max(SHORTEST.total_seconds(), min(number, LONGEST.total_seconds()))


def _windows(headers: Mapping[str, str], now: datetime, skew: timedelta) -> list[Window]:
    names = {match[1] for match in map(WINDOW.fullmatch, headers) if match}
    return [
        Window(
            name=name,
            status=headers.get(f"{PREFIX}{name}-status") or None,
            utilization=_fraction(headers.get(f"{PREFIX}{name}-utilization")),
            reset_at=_moment(headers.get(f"{PREFIX}{name}-reset"), now, skew),
        )
        for name in sorted(names)
        if name not in NOT_WINDOWS
    ]


def _classic(headers: Mapping[str, str], now: datetime, skew: timedelta) -> datetime | None:
    """Return when the last of the per-minute limits that are at 0 is filled again."""
    resets = [
        _moment(headers.get(name.replace("-remaining", "-reset")), now, skew)
        for name in headers
        if CLASSIC.fullmatch(name) and _number(headers[name]) == 0
    ]
    return max(filter(None, resets), default=None)


def _skew(date: str | None, now: datetime) -> timedelta:
    moment = _http_date(date)
    skew = now - moment if moment else timedelta(0)
    return skew if NOTICEABLE_SKEW < abs(skew) <= CREDIBLE_SKEW else timedelta(0)


def _moment(value: str | None, now: datetime, skew: timedelta) -> datetime | None:
    """Read epoch seconds (or milliseconds), RFC 3339 or an HTTP date."""
    number = _number(value)
    if number is not None:
        seconds = number / 1000 if number > MILLISECONDS else number
        moment = datetime.fromtimestamp(seconds, UTC) if seconds < 10**11 else None
    else:
        moment = _rfc3339(value) or _http_date(value)
    ahead = moment - now + skew if moment else timedelta(0)
    return now + max(SHORTEST, min(ahead, LONGEST)) if ahead > timedelta(0) else None


def _number(value: str | None) -> float | None:
    # str.isdigit alone takes digits of other scripts, and int() reads them.
    if value is None or not value.isascii() or not value.strip().isdigit() or len(value) > 18:
        return None
    return float(value)


def _fraction(value: str | None) -> float | None:
    if value is None or not re.fullmatch(r"\d{1,4}(\.\d{1,18})?", value.strip(), re.ASCII):
        return None
    return float(value)


def _rfc3339(value: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(_plain(value))
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _http_date(value: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(_plain(value))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _plain(value: str | None) -> str:
    """Return a value that may be a date; nothing for one that is too long or not ASCII."""
    return value if value and len(value) <= LONGEST_TEXT and value.isascii() else ""
