"""How many sessions and requests a key may have at a time: its own number, or what holds for all.

Where others than keys are limited (SESSION_CLIENT), only its own number holds for a key.
"""

from __future__ import annotations

from django.conf import settings

from sessions_limit.scopes import ANY


def most_sessions(own: int | None) -> int:
    """Return how many sessions a key with this number of its own may have; ANY for any number."""
    if not settings.CONFIG.session_limit:
        return ANY
    return _own_or(own, settings.CONFIG.session_max_concurrent)


def most_in_flight(own: int | None) -> int:
    """Return how many requests a key with this number of its own may have under way."""
    return _own_or(own, settings.CONFIG.client_max_in_flight)


def _own_or(own: int | None, every: int) -> int:
    if own is not None:
        return own
    return every if settings.CONFIG.session_client == "key" else ANY
