"""Which account a request goes to first: its session's own, or the next in turn."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from accounts import pool
from accounts.pool import Member, Pool
from lib.snapshot import FRESH
from relay import dealing, effects, model_lists, news, renewing, routing, waking
from relay.bench import bench
from relay.capabilities import offers
from relay.errors import PoolUnavailable, RelayError
from relay.request import ClientRequest
from relay.trail import Attempt, Trail

LIST_SECONDS = 2.5


@dataclass(frozen=True, slots=True)
class Choice:
    """The account chosen, and the pool it was chosen from; `order` begins with it."""

    pool: Pool
    order: list[int]


async def choose(request: ClientRequest, trail: Trail, *, may_probe: bool = True) -> Choice:
    """Choose among the accounts that can serve; raise RelayError when there is none.

    `may_probe` tells that a refusal costs the client nothing: another account is tried then.
    """
    now = timezone.now()
    view = await pool.snapshot.get()
    await offers.follow()
    news.follow(view, now)
    found = routing.candidates(view, bench, request, now)
    if may_probe and request.spends_quota and not dealing.is_at_home(request, found):
        trail.probe = await _claimed_probe(view, request, now)
    if trail.probe is not None:
        return Choice(view, await dealing.behind(view, trail.probe, found, request, trail, now))
    if not found.usable:
        # Nobody is turned away by a view of the pool that is seconds old.
        view, found = await _newest(request, now)
    if routing.is_unknown(view, request):
        # A new model is known to the upstream before it is known here.
        await asyncio.wait({model_lists.begin(age=model_lists.YOUNG)}, timeout=LIST_SECONDS)
        await offers.follow(max_age=FRESH)
        found = routing.candidates(view, bench, request, now)
    if not found.usable and await waking.wake(view, request, now):
        view, found = await _newest(request, now)
    trail.candidates, trail.skipped = found.usable, found.skipped
    if not found.usable:
        raise routing.nobody(view, bench, request, now)
    return Choice(view, await dealing.deal(view, found, request, trail, now))


async def _newest(request: ClientRequest, now: datetime) -> tuple[Pool, routing.Candidates]:
    view = await pool.snapshot.get(max_age=FRESH)
    news.follow(view, now)
    return view, routing.candidates(view, bench, request, now)


async def _claimed_probe(view: Pool, request: ClientRequest, now: datetime) -> int | None:
    """Return a spent account that this request alone, of all processes, may try this hour."""
    for member in view.members:
        if member.may_be_probed(now) and routing.suits(member, request):
            if await effects.claim_probe(member, now):
                return member.id
            return None
    return None


async def with_token(request: ClientRequest, trail: Trail) -> Member:
    """Return the first account, in the order of turns, whose token is good; raise RelayError."""
    choice = await choose(request, trail, may_probe=False)
    for account in choice.order:
        member = choice.pool.member(account)
        if member is None or account not in trail.candidates:
            continue
        if not member.provider.keeps_things:
            continue
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
