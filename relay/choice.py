"""Which account makes a new thing: the session's own, or the next in turn."""

from __future__ import annotations

from django.conf import settings
from django.utils import timezone

from accounts import pool
from accounts.pool import Member
from lib.snapshot import FRESH
from relay import renewing, routing, strategies
from relay.bench import bench
from relay.errors import PoolUnavailable, RelayError
from relay.request import ClientRequest
from relay.trail import Attempt, Trail
from sessions_limit import sessions


async def choose(request: ClientRequest, trail: Trail) -> Member:
    """Return the first account, in the order of turns, whose token is good; raise RelayError."""
    for member in await _in_order(request):
        if live := await renewing.with_live_token(member):
            return live
        trail.attempts.append(Attempt(member.id, "D03"))
    raise PoolUnavailable


async def refused(request: ClientRequest) -> RelayError:
    """Return what to tell a client whose account turned out to be spent.

    Nothing is sent a second time, but the client may: at once if another account can serve.
    """
    now = timezone.now()
    latest = await pool.snapshot.get(max_age=FRESH)
    if routing.candidates(latest, bench, request, now).usable:
        return PoolUnavailable(retry_after=1)
    return routing.nobody(latest, bench, request, now)


async def _in_order(request: ClientRequest) -> list[Member]:
    now = timezone.now()
    members = await pool.snapshot.get()
    found = routing.candidates(members, bench, request, now)
    if not found.usable:
        members = await pool.snapshot.get(max_age=FRESH)
        found = routing.candidates(members, bench, request, now)
    if not found.usable:
        raise routing.nobody(members, bench, request, now)
    if request.session is not None and settings.CONFIG.sticky_sessions:
        key = request.key.id
        account = await sessions.bind(key, request.session, found.first, found.usable)
    else:
        deal = strategies.STRATEGIES[settings.CONFIG.routing_strategy]
        account = deal(found.first, sessions.turn())[0]
    # Those that may take a new session come before those that only may keep theirs.
    ranked = dict.fromkeys([account, *found.first, *found.usable])
    return [member for account in ranked if (member := members.member(account))]
