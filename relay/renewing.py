"""An account with a token that outlives the next minute (D03), or with a newer one (D11)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from django.utils import timezone

from accounts import tokens
from accounts.pool import Member
from accounts.renewal import Outcome
from accounts.states import is_ahead

EXPIRING = timedelta(seconds=60)


async def with_live_token(member: Member) -> Member | None:
    """Return the member with a token that can be used now, or None.

    A token that could not be renewed serves to its very end.
    """
    expires = member.expires_at
    if expires is None or is_ahead(expires - EXPIRING, timezone.now()):
        return member
    return await renewed(member) or (member if is_ahead(expires, timezone.now()) else None)


async def renewed(member: Member, *, rejected: bool = False) -> Member | None:
    """Return the member with a newer token; None when there is none to be had now."""
    renewal = await tokens.renewed(member.id, member.credential, rejected=rejected)
    if renewal.outcome is not Outcome.RENEWED or renewal.credential is None:
        return None
    return replace(
        member,
        credential=renewal.credential,
        secret=renewal.secret,
        expires_at=renewal.expires_at,
    )
