"""How an account's credential is put into a request to Anthropic's API."""

from __future__ import annotations

from collections.abc import Sequence

from providers.base import Header

BETA = "anthropic-beta"
# Unlocks bearer authentication; the API answers 401 without it.
# https://code.claude.com/docs/en/llm-gateway-protocol
OAUTH_BETA = "oauth-2025-04-20"


def with_bearer(headers: Sequence[Header], token: str) -> list[Header]:
    """Return the headers with a bearer token and the beta that bearer tokens need."""
    return [*_with_beta(headers, OAUTH_BETA), ("authorization", f"Bearer {token}")]


def with_api_key(headers: Sequence[Header], key: str) -> list[Header]:
    """Return the headers with an API key."""
    return [*headers, ("x-api-key", key)]


def _with_beta(headers: Sequence[Header], beta: str) -> list[Header]:
    """Add one beta to those of the client, whose values and order stay as they were sent."""
    places = [i for i, (name, _) in enumerate(headers) if name == BETA]
    sent = {value.strip() for i in places for value in headers[i][1].split(",")}
    merged = list(headers)
    if beta in sent:
        return merged
    if not places:
        return [*merged, (BETA, beta)]
    last = places[-1]
    merged[last] = (BETA, f"{headers[last][1]},{beta}" if headers[last][1].strip() else beta)
    return merged
