"""A wish for a newer access token, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Wish:
    """A newer generation than `seen` is wanted.

    `rejected`: the upstream refused `seen`, so its clock says nothing. `retry`: an operator dials
    an `invalid` account once more.
    """

    account: int
    seen: UUID
    rejected: bool = False
    retry: bool = False
    by: str = "refresh"


class Outcome(Enum):
    """How a refresh ended, by the reaction it calls for."""

    RENEWED = auto()
    TRY_LATER = auto()
    DEAD = auto()
    UNRENEWABLE = auto()


@dataclass(frozen=True, slots=True)
class Renewal:
    """RENEWED carries the newer generation; it is already committed.

    TRY_LATER: nothing is known to be wrong with the login; a token that is still valid serves to
    its end. DEAD: the account is `invalid` or gone, only its owner can help. UNRENEWABLE: there is
    no refresh token (an API key, a setup token), so what was seen is all there is.
    """

    outcome: Outcome
    credential: UUID | None = None
    secret: str = field(default="", repr=False)
    expires_at: datetime | None = None
    why: str = ""
