"""What became of a request: each attempt, why it ended as it did, and what it used."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum

from relay.meter import Usage


class Ended(StrEnum):
    """How a request ended; every one ends in exactly one of these."""

    COMPLETE = "complete"
    REFUSED = "refused"
    UPSTREAM_CUT = "upstream_cut"
    ERROR_IN_STREAM = "error_in_stream"
    CLIENT_GONE = "client_gone"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt: the account, the row of the table that judged it, and the status that came."""

    account: int
    row: str
    status: int = 0


@dataclass(slots=True)
class Trail:
    """The story of one request; times are epoch seconds.

    Until something else is known, the client has gone: that is how a cancelled request ends.
    """

    started_at: float = field(default_factory=time.time)
    first_byte_at: float | None = None
    attempts: list[Attempt] = field(default_factory=list)
    status: int = 499
    ended: Ended = Ended.CLIENT_GONE
    usage: Usage = field(default_factory=Usage)

    @property
    def account(self) -> int | None:
        """The account of the last attempt."""
        return self.attempts[-1].account if self.attempts else None
