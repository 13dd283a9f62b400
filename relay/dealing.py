"""To whom a request is dealt: the strategy for its model ranks, its session or its turn decides."""

from __future__ import annotations

import random
from datetime import datetime

from django.conf import settings

from accounts.pool import Pool
from relay import strategies
from relay.bench import family
from relay.load import Load, dealt
from relay.ramp import ramp
from relay.request import ClientRequest
from relay.routing import Candidates
from relay.trail import Trail
from sessions_limit import sessions

DICE = random.Random()


async def deal(
    pool: Pool, found: Candidates, request: ClientRequest, trail: Trail, now: datetime
) -> list[int]:
    """Return the accounts of the pool in the order in which they are to be tried."""
    ranks = _ranks(pool, found.first, request, now)
    group = ranks[0]
    if request.session is not None and settings.CONFIG.sticky_sessions:
        with dealt.expecting(group[0]):
            key = request.key.id
            account = await sessions.bind(key, request.session, group, found.usable)
    else:
        account = sessions.turn(group)
    trail.bound = account
    order = strategies.order(ranks, account)
    if not ramp.admits(account):
        # Of requests that came at once only the first may meet an account that has just returned.
        account = next((a for a in order if a in found.first and ramp.admits(a)), account)
        order = strategies.order(ranks, account)
    dealt.note(account)
    return order


async def behind(
    pool: Pool, probe: int, found: Candidates, request: ClientRequest, trail: Trail, now: datetime
) -> list[int]:
    """Return the same behind an account that is to be tried first, whatever its rank."""
    trail.candidates, trail.skipped = found.usable, found.skipped
    if not found.usable:
        return strategies.order(_ranks(pool, (), request, now), probe)
    order = await deal(pool, found, request, trail, now)
    return [probe, *(account for account in order if account != probe)]


def is_at_home(request: ClientRequest, found: Candidates) -> bool:
    """Tell whether a request's session is known to have an account of its own that can serve it.

    Elsewhere its prompt cache is lost, and what its own account has signed is refused.
    """
    if request.session is None or not settings.CONFIG.sticky_sessions:
        return False
    return sessions.seen(request.key.id, request.session) in found.usable


def _ranks(
    pool: Pool, first: tuple[int, ...], request: ClientRequest, now: datetime
) -> strategies.Ranks:
    """Rank those who come first, and behind them everybody else."""
    config = settings.CONFIG
    name = config.routing_strategies.get(family(request.model), config.routing_strategy)
    rank, load = strategies.STRATEGIES[name], Load(now, _in_flight, dealt.count, DICE)
    leading = [member for member in pool.members if member.id in first]
    others = [member for member in pool.members if member.id not in first]
    return rank(leading, load) + rank(others, load)


def _in_flight(account: int) -> int:
    return ramp.in_flight(account) + dealt.expected(account)
