"""What became of a request: each attempt, why it ended as it did, and what it used."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from relay.meter import Usage


class Ended(StrEnum):
    """How a request ended; every one ends in exactly one of these."""

    COMPLETE = "complete"
    REFUSED = "refused"
    UPSTREAM_CUT = "upstream_cut"
    ERROR_IN_STREAM = "error_in_stream"
    CLIENT_GONE = "client_gone"
    TIMEOUT = "timeout"
    REVOKED = "revoked"
    SESSION_REVOKED = "session_revoked"
    DISABLED = "disabled"


# These accounts were passed over: nothing was sent to them.
PASSED_OVER = frozenset({"D03", "quota"})
# So an answer ends that had begun and did not come to its end.
PARTIAL = frozenset(Ended) - {Ended.COMPLETE, Ended.REFUSED}
# What stands for the account where the client's own login was sent.
PASSED_THROUGH = "passthrough"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt: account, row that judged it, status that came, seconds waited before it.

    `account` is None where it was the client's own login.
    """

    account: int | None
    row: str
    status: int = 0
    waited: float = 0.0


@dataclass(slots=True)
class Trail:
    """The story of one request; times are epoch seconds, `model` is the one that answered.

    `is_spared` tells that the API was spared, and only other upstreams were asked; `upstream_id` is
    the upstream's own name for the request whose answer was delivered. `is_whole` tells that all of
    an answer has come, however its client left. `passes_through` tells that the client's own login
    was sent, and no account of the pool. `queued` is how many seconds it waited for a place.

    Until something else is known, the client has gone: that is how a cancelled request ends.
    """

    started_at: float = field(default_factory=time.time)
    first_byte_at: float | None = None
    candidates: tuple[int, ...] = ()
    skipped: dict[int, str] = field(default_factory=dict)
    bound: int | None = None
    is_spared: bool = False
    probe: int | None = None
    asking: int | None = None
    attempts: list[Attempt] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    status: int = 499
    ended: Ended = Ended.CLIENT_GONE
    error: str = ""
    is_upstream_silent: bool = False
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    upstream_id: str = ""
    is_whole: bool = False
    passes_through: bool = False
    queued: float = 0.0
    bytes_received: int = 0
    bytes_sent: int = 0

    @property
    def account(self) -> int | None:
        """The account of the last attempt."""
        return self.attempts[-1].account if self.attempts else None

    @property
    def may_be_billed_twice(self) -> bool:
        """Tell whether an attempt was lost without an answer, and another one made."""
        sent = [attempt.row for attempt in self.attempts if attempt.row not in PASSED_OVER]
        return "D05" in sent[:-1]

    @property
    def is_partial(self) -> bool:
        """Tell whether an answer broke off, so that what it used is only what was seen."""
        began = self.first_byte_at is not None
        return began and self.ended in PARTIAL and not self.is_whole

    @property
    def counted_tokens(self) -> int:
        """What counts against a minute: cached input that is only read does not."""
        used = self.usage
        counts = used.input_tokens, used.output_tokens, used.cache_creation_input_tokens
        return sum(count or 0 for count in counts)

    def as_json(self) -> dict[str, Any]:
        """Return the decision trail for the record: who could serve, who not and why, each try."""
        told: dict[str, Any] = {
            "candidates": list(self.candidates),
            "skipped": {str(account): why for account, why in self.skipped.items()},
            "attempts": [asdict(attempt) for attempt in self.attempts],
        }
        if self.queued:
            told["queued"] = round(self.queued, 3)
        return told | {"passes_through": True} if self.passes_through else told

    def as_headers(self) -> list[tuple[bytes, bytes]]:
        """Return account and attempts as headers, for an operator who looks for a fault.

        A name is percent-encoded, as a header holds no other than ASCII text.
        """

        def name(account: int | None) -> str:
            if account is None:
                return PASSED_THROUGH
            return quote(self.names.get(account, str(account)), safe=" @.+-_")

        rows = ", ".join(f"{name(attempt.account)} {attempt.row}" for attempt in self.attempts)
        account = name(self.account) if self.attempts else ""
        return [(b"x-relay-account", account.encode()), (b"x-relay-attempts", rows.encode())]
