"""What a kind of channel must be able to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Result(StrEnum):
    """What came of one try, by the reaction it calls for."""

    DELIVERED = "delivered"
    GONE = "gone"
    RATE_LIMITED = "rate_limited"
    REFUSED = "refused"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Message:
    """One alert for one channel; a further try has the same id and the same body (JSON)."""

    id: str
    url: str = field(repr=False)
    secret: str = field(repr=False)
    body: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one try; `error` is short and holds no secret, `retry_after` is in seconds."""

    result: Result
    status: int | None = None
    error: str = ""
    retry_after: float = 0.0

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver took it."""
        return self.result is Result.DELIVERED


class AddressRefused(Exception):
    """An address that this kind of channel cannot or may not use; the text says why."""


class Notifier(Protocol):
    """A kind of channel."""

    def check(self, url: str) -> None:
        """Raise AddressRefused for an address that may not be used."""

    def new_secret(self) -> str:
        """Return a new secret that the receiver verifies alerts with."""

    async def send(self, message: Message) -> Outcome:
        """Try once to send; what goes wrong is an outcome, never an exception."""
