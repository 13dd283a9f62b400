"""To whom a request is dealt: the strategy for its model ranks, its session or its turn decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime

from django.conf import settings
from django.utils import timezone

from accounts import pool
from accounts.pool import Pool
from relay import routing, strategies
from relay.bench import bench, family
from relay.load import Load, dealt
from relay.ramp import ramp
from relay.request import ClientRequest
from relay.routing import Candidates
from relay.trail import Trail
from sessions_limit import sticky
from sessions_limit.limiter import Claim

DICE = random.Random()
# These rank accounts by their settings alone.
TURNS = frozenset({"round_robin", "weighted", "priority"})


async def deal(
    view: Pool, found: Candidates, request: ClientRequest, trail: Trail, now: datetime
) -> list[int]:
    """Return the accounts of the pool in the order in which they are to be tried."""
    ranks = _ranks(view, found.first, request, now)
    group = ranks[0]
    if request.session is not None and settings.CONFIG.sticky_sessions:
        with dealt.expecting(group[0]):
            account = await _bound(request.key.id, request.session, request.claimed, group, found)
    else:
        account = sticky.turn(group)
    trail.bound = account
    order = strategies.order(ranks, account)
    if not ramp.admits(account):
        # Of requests that came at once only the first may meet an account that has just returned.
        account = next((a for a in order if a in found.first and ramp.admits(a)), account)
        order = strategies.order(ranks, account)
    dealt.note(account)
    return order


async def behind(
    view: Pool, probe: int, found: Candidates, request: ClientRequest, trail: Trail, now: datetime
) -> list[int]:
    """Return the same behind an account that is to be tried first, whatever its rank."""
    trail.candidates, trail.skipped = found.usable, found.skipped
    if not found.usable:
        return strategies.order(_ranks(view, (), request, now), probe)
    order = await deal(view, found, request, trail, now)
    return [probe, *(account for account in order if account != probe)]


def is_at_home(request: ClientRequest, found: Candidates) -> bool:
    """Tell whether a request's session is known to have an account of its own that can serve it.

    Elsewhere its prompt cache is lost, and what its own account has signed is refused.
    """
    if request.session is None or not settings.CONFIG.sticky_sessions:
        return False
    if request.claimed is not None:
        return False
    return sticky.seen(request.key.id, request.session) in found.usable


async def claim(request: ClientRequest) -> Claim | None:
    """Return what a new session asks for before its request's body is read, or None.

    Admitted and bound in one call, it costs one only. What the body then says is heard in `deal`;
    strategies that look at the moment, or at the model, have their say there alone.
    """
    config = settings.CONFIG
    is_early = config.routing_strategy in TURNS and not config.routing_strategies
    if request.session is None or not config.sticky_sessions or not is_early:
        return None
    now = timezone.now()
    view = await pool.snapshot.get()
    found = routing.candidates(view, bench, request, now)
    if not found.usable:
        return None
    group = _ranks(view, found.first, request, now)[0]
    return sticky.claim(request.key.id, request.session, group, found.usable)


async def _bound(
    key: int, session: str, claimed: int | None, group: Sequence[int], found: Candidates
) -> int:
    """Return the account of a session; one that was claimed in ignorance of the model may go."""
    if claimed is None:
        return await sticky.bind(key, session, group, found.usable)
    if claimed in group:
        return claimed
    return await sticky.rebind(key, session, claimed, group, found.usable)


def _ranks(
    view: Pool, first: tuple[int, ...], request: ClientRequest, now: datetime
) -> strategies.Ranks:
    """Rank those who come first, and behind them everybody else."""
    config = settings.CONFIG
    name = config.routing_strategies.get(family(request.model), config.routing_strategy)
    rank, load = strategies.STRATEGIES[name], Load(now, _in_flight, dealt.count, DICE)
    leading = [member for member in view.members if member.id in first]
    others = [member for member in view.members if member.id not in first]
    return rank(leading, load) + rank(others, load)


def _in_flight(account: int) -> int:
    return ramp.in_flight(account) + dealt.expected(account)
