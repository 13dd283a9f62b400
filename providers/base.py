"""What every kind of upstream account must be able to say; pure functions of facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

Header = tuple[str, str]

# The windows that every request counts against; others are of one family of models.
WHOLE_ACCOUNT = frozenset({"5h", "7d"})


@dataclass(frozen=True, slots=True)
class Window:
    """What one answer said about one limit window.

    `name` as the upstream calls it ("5h", "7d", "7d_oi"), `utilization` a fraction (1.0 = spent),
    `status` "allowed", "allowed_warning" or "rejected"; None where the answer did not say. `limit`
    and `remaining` are counts per minute, of an API key's windows only.
    """

    name: str
    status: str | None = None
    utilization: float | None = None
    reset_at: datetime | None = None
    limit: int | None = None
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An Anthropic-compatible upstream: `auth` is "bearer", "x-api-key" or "none".

    `model_map` gives patterns of model names (`*` stands for any text) and what they are called
    there, in the order in which they are tried.
    """

    base_url: str
    auth: str = "bearer"
    forwards_betas: bool = True
    model_map: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer's headers say about limits; every field may be absent.

    `windows` are those of a subscription, `classic` the per-minute ones of an API key.
    `overage_in_use` tells that the request was billed as paid extra usage, `overage` how far that
    is used: of no request does it decide anything.
    """

    status: str | None = None
    reset_at: datetime | None = None
    retry_after: float | None = None
    windows: tuple[Window, ...] = ()
    classic: tuple[Window, ...] = ()
    overage: Window | None = None
    overage_in_use: bool = False
    classic_spent_until: datetime | None = None

    @property
    def is_unified(self) -> bool:
        """Tell whether the answer carried any subscription window at all."""
        return self.status is not None or bool(self.windows)


class Provider(Protocol):
    """How to speak to one kind of upstream account."""

    @property
    def kind(self) -> str:
        """The kind of account, as stored."""

    @property
    def can_refresh(self) -> bool:
        """Tell whether its access token can be renewed."""

    @property
    def serves_any_client(self) -> bool:
        """Tell whether requests of clients other than Claude Code are within its terms."""

    @property
    def keeps_things(self) -> bool:
        """Tell whether batches and files can be made there and asked for later."""

    def authenticate(self, headers: Sequence[Header], secret: str) -> list[Header]:
        """Return the client's headers (lower-case names) with this account's credential."""

    def limits(self, headers: Mapping[str, str], now: datetime) -> Limits:
        """Read the limits an answer's headers (lower-case names) tell."""
