"""How to speak to Anthropic's own API, with each kind of credential."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from providers.anthropic import limits
from providers.anthropic.headers import with_api_key, with_bearer
from providers.base import Header, Limits


@dataclass(frozen=True, slots=True)
class Anthropic:
    """Anthropic's API, spoken to with one kind of credential."""

    kind: str
    can_refresh: bool
    serves_any_client: bool
    put_credential: Callable[[Sequence[Header], str], list[Header]]
    keeps_things: bool = True

    def authenticate(self, headers: Sequence[Header], secret: str) -> list[Header]:
        """Return the client's forwarded headers with this account's credential."""
        return self.put_credential(headers, secret)

    def limits(self, headers: Mapping[str, str], now: datetime) -> Limits:
        """Read the limits an answer's headers (lower-case names) tell."""
        return limits.read(headers, now)


# Subscription logins are meant for Claude Code itself; API keys serve any client.
OAUTH = Anthropic("oauth", True, False, with_bearer)
SETUP_TOKEN = Anthropic("setup_token", False, False, with_bearer)
API_KEY = Anthropic("api_key", False, True, with_api_key)
