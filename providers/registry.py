"""Which provider speaks for which kind of account."""

from __future__ import annotations

from providers import anthropic
from providers.base import Provider

PROVIDERS: dict[str, Provider] = {
    provider.kind: provider
    for provider in (anthropic.OAUTH, anthropic.SETUP_TOKEN, anthropic.API_KEY)
}
