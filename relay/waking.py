"""An account that was set aside as idle returns for a request that finds no other (S10)."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import Error as DatabaseError
from django.utils import timezone

from accounts import health, tokens
from accounts.pool import Member, Pool
from accounts.renewal import Outcome
from accounts.states import Status, is_ahead
from lib import db
from relay import routing
from relay.bench import bench
from relay.renewing import EXPIRING
from relay.request import ClientRequest

# After a try that failed, this process leaves the account alone for so long.
PAUSE = timedelta(seconds=10)


async def wake(view: Pool, request: ClientRequest, now: datetime) -> bool:
    """Return one idle account to the pool; True: look again, the pool has changed.

    An account that an operator disabled, or that comes from a back-up, is never woken. A login that
    turns out dead makes its account `invalid`, and the next one is tried.
    """
    if not settings.CONFIG.wake_idle:
        return False
    for member in view.members:
        if may_be_woken(member, request, now):
            if await _woken(member):
                return True
            bench.hold(member.id, now + PAUSE)
    return False


def may_be_woken(member: Member, request: ClientRequest, now: datetime) -> bool:
    """Tell whether an idle account would be woken for this request, if WAKE_IDLE lets it."""
    return (
        member.status is Status.INACTIVE
        and member.reason == "idle"
        and not is_ahead(member.limited_until, now)
        and not is_ahead(member.cooldown_until, now)
        and bench.held_until(member.id, request.model, now) is None
        and routing.suits(member, request)
    )


async def _woken(member: Member) -> bool:
    dead = ""
    if member.expires_at and not is_ahead(member.expires_at - EXPIRING, timezone.now()):
        renewal = await tokens.renewed(member.id, member.credential)
        ends = member.expires_at
        match renewal.outcome:
            case Outcome.DEAD:
                dead = renewal.why
            case Outcome.UNRENEWABLE if not is_ahead(ends, timezone.now()):
                dead = "expired"
            case Outcome.TRY_LATER if not is_ahead(ends, timezone.now()):
                return False
    try:
        # Whoever loses this race finds the account awake.
        await db.in_thread(health.wake, member.id, dead=dead)
    except DatabaseError:
        return False
    return not dead
