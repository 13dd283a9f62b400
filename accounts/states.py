"""The states of an account and the only moves between them; pure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """Where an account stands."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    RATE_LIMITED = "rate_limited"
    INVALID = "invalid"


class Trigger(StrEnum):
    """What may move an account."""

    LIMIT = "limit"
    RECOVER = "recover"
    REJECT = "reject"
    IDLE = "idle"
    DISABLE = "disable"
    ENABLE = "enable"
    RELINK = "relink"
    HEAL = "heal"
    RETRY = "retry"
    WAKE = "wake"


class Kind(StrEnum):
    """The kinds of account."""

    OAUTH = "oauth"
    SETUP_TOKEN = "setup_token"
    API_KEY = "api_key"
    COMPATIBLE = "compatible"


class Auth(StrEnum):
    """How a compatible endpoint takes its secret."""

    BEARER = "bearer"
    API_KEY = "x-api-key"
    NONE = "none"


# The reason of an account whose running requests end with it.
CUT = "cut"
# The reason of an account from a back-up, whose secret was not proved yet.
RESTORED = "restored"
# The reason of a limit that was told while the account was out: then only its end was noted.
STILL_LIMITED = "still_limited"

A, I, L, X = Status.ACTIVE, Status.INACTIVE, Status.RATE_LIMITED, Status.INVALID  # noqa: E741

# The rows are S03 to S14 of docs/accounts.md; a pair that is not here is not a move (S15 to S17).
TRANSITIONS: dict[tuple[Status, Trigger], Status] = {
    (A, Trigger.LIMIT): L,
    (L, Trigger.LIMIT): L,
    (L, Trigger.RECOVER): A,
    (A, Trigger.REJECT): X,
    (L, Trigger.REJECT): X,
    (A, Trigger.IDLE): I,
    (A, Trigger.DISABLE): I,
    (L, Trigger.DISABLE): I,
    # Only one that is idle, which a request might wake.
    (I, Trigger.DISABLE): I,
    (I, Trigger.ENABLE): A,
    (I, Trigger.WAKE): A,
    (A, Trigger.RELINK): A,
    (L, Trigger.RELINK): A,
    (I, Trigger.RELINK): I,
    (X, Trigger.RELINK): A,
    (X, Trigger.HEAL): A,
    (X, Trigger.RETRY): A,
}


def target(
    status: Status, trigger: Trigger, limited_until: datetime | None, now: datetime
) -> Status | None:
    """Return where `trigger` moves an account in `status`, or None when it does not.

    An account that becomes usable while a limit still holds becomes `rate_limited` instead, except
    by RECOVER, whose caller has proof that the limit is over.
    """
    new = TRANSITIONS.get((status, trigger))
    if new is A and trigger is not Trigger.RECOVER and is_ahead(limited_until, now):
        return L
    return new


def is_ahead(moment: datetime | None, now: datetime) -> bool:
    """Tell whether `moment` is given and still to come."""
    return moment is not None and now < moment
