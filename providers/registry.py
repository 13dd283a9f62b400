"""Which provider speaks for which kind of account."""

from __future__ import annotations

from providers import anthropic
from providers.base import Endpoint, Provider
from providers.compatible import Compatible

PROVIDERS: dict[str, Provider] = {
    provider.kind: provider
    for provider in (anthropic.OAUTH, anthropic.SETUP_TOKEN, anthropic.API_KEY)
}


def provider(kind: str, endpoint: Endpoint | None = None) -> Provider:
    """Return who speaks for an account: of its `endpoint` if it has one, else of its kind."""
    return PROVIDERS[kind] if endpoint is None else Compatible(endpoint)
