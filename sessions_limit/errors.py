"""Why a client may not go on now; what each means for an HTTP client is said in relay/admission.py.

Refused               `seconds` until it may come again, 0.0 where nobody knows
├── Full              too many sessions: a slot is free then, if its session stays quiet
├── Busy              too many requests under way
├── Revoked           the session was revoked
├── RateLimited       too many requests or tokens in this minute
├── Spent             a budget is used up
└── Undecided         nobody could be asked, and the operator wants it refused then
"""

from __future__ import annotations


class Refused(Exception):
    """A client may not go on now; the message, if there is one, is for its holder."""

    def __init__(self, seconds: float = 0.0, message: str = "") -> None:
        super().__init__(message)
        self.seconds = seconds


class Full(Refused):
    """The client, its key or the relay has all the sessions it may have."""


class Busy(Refused):
    """The client, its key or its session has all the requests under way that it may have."""


class Revoked(Refused):
    """The session was revoked, and is refused for a while."""


class RateLimited(Refused):
    """The key had all the requests or tokens of this minute."""


class Spent(Refused):
    """The key's budget for this day, week or month is used up."""


class Undecided(Refused):
    """Redis is away, and SESSION_FAIL_MODE is closed."""
