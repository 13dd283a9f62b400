"""Read the values of headers: numbers, shares and moments; what is odd counts as absent."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

SHORTEST, LONGEST = timedelta(seconds=1), timedelta(days=8)
LONGEST_TEXT = 64
MILLISECONDS = 10**12
# Two digits before the point would be a percentage, which no such header is.
FRACTION = re.compile(r"\d(\.\d{1,18})?", re.ASCII)


def number(value: str | None) -> float | None:
    """Return a whole number that is not negative."""
    # str.isdigit alone takes digits of other scripts, and int() reads them.
    if value is None or not value.isascii() or not value.strip().isdigit() or len(value) > 18:
        return None
    return float(value)


def fraction(value: str | None) -> float | None:
    """Return a share of 1; a little more than 1 occurs."""
    if value is None or not FRACTION.fullmatch(value.strip()):
        return None
    return float(value)


def moment(value: str | None, now: datetime, skew: timedelta) -> datetime | None:
    """Return a time that is still to come: epoch seconds (or milliseconds), RFC 3339, HTTP date."""
    digits = number(value)
    if digits is not None:
        seconds = digits / 1000 if digits > MILLISECONDS else digits
        told = datetime.fromtimestamp(seconds, UTC) if seconds < 10**11 else None
    else:
        told = _rfc3339(value) or http_date(value)
    ahead = told - now + skew if told else timedelta(0)
    return now + max(SHORTEST, min(ahead, LONGEST)) if ahead > timedelta(0) else None


def http_date(value: str | None) -> datetime | None:
    """Return the time of an HTTP date, whatever it is."""
    try:
        told = parsedate_to_datetime(_plain(value))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return told if told.tzinfo else told.replace(tzinfo=UTC)


def _rfc3339(value: str | None) -> datetime | None:
    try:
        told = datetime.fromisoformat(_plain(value))
    except ValueError:
        return None
    return told if told.tzinfo else None


def _plain(value: str | None) -> str:
    """Return a value that may be a date; nothing for one that is too long or not ASCII."""
    return value if value and len(value) <= LONGEST_TEXT and value.isascii() else ""
