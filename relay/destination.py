"""Where an account's requests go, and on which way; pure."""

from __future__ import annotations

from accounts.pool import Member
from relay.mapping import mapped, with_model
from relay.upstream.base import Route


def url(member: Member, target: str, anthropic: str) -> str:
    """Return the address of `target` (path and query) at the account's upstream.

    `anthropic` is the address of Anthropic's own API.
    """
    return (member.endpoint.base_url if member.endpoint else anthropic) + target


def route(member: Member) -> Route:
    """Return how the account's upstream is reached: an operator has typed an endpoint's address."""
    return Route(member.proxy, is_guarded=member.endpoint is not None)


def body(member: Member, given: bytes, model: str) -> bytes:
    """Return the body as the account's upstream wants it: only an endpoint's map changes it."""
    there = mapped(model, member.endpoint) if member.endpoint else None
    return given if there is None else with_model(given, there)
