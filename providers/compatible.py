"""How to speak to an endpoint that offers the Messages API without being Anthropic's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from providers.anthropic import limits
from providers.anthropic.headers import BETA
from providers.base import Endpoint, Header, Limits


def in_order(model_map: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return a map's patterns as they are tried: exact names, then the longer before the shorter.

    Databases do not keep the order in which they were written.
    """
    return tuple(sorted(model_map.items(), key=lambda pair: ("*" in pair[0], -len(pair[0]), pair)))


@dataclass(frozen=True, slots=True)
class Compatible:
    """One endpoint, spoken to as its operator has described it."""

    endpoint: Endpoint
    kind: str = "compatible"
    can_refresh: bool = False
    serves_any_client: bool = True
    keeps_things: bool = False

    def authenticate(self, headers: Sequence[Header], secret: str) -> list[Header]:
        """Return the client's forwarded headers with this account's credential.

        Some endpoints refuse betas that they do not know; to those none are forwarded.
        """
        kept = [h for h in headers if self.endpoint.forwards_betas or h[0] != BETA]
        match self.endpoint.auth:
            case "bearer":
                return [*kept, ("authorization", f"Bearer {secret}")]
            case "x-api-key":
                return [*kept, ("x-api-key", secret)]
            case _:
                return kept

    def limits(self, headers: Mapping[str, str], now: datetime) -> Limits:
        """Read the limits an answer's headers (lower-case names) tell."""
        return limits.read(headers, now)
