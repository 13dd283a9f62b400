"""How long to wait before an endpoint is asked again, by the way it failed."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from django.conf import settings

from lib.backoff import Policy

LONGEST_RETRY_AFTER = 3600.0


def policy(status: int | None) -> Policy:
    """Return the back-off after an answer with `status`, or after none (None)."""
    if status is None:
        return Policy(*settings.CONFIG.backoff_timeout)
    if status == 429:
        return Policy(*settings.CONFIG.backoff_rate_limited)
    return Policy(*settings.CONFIG.backoff_server_error)


def retry_after(text: str | None, now: datetime) -> float:
    """Return the seconds that a `retry-after` asks for, at most an hour; 0 if it says nothing."""
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)
