"""The one loop: choose an account, try, judge, and either deliver or go on."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from django.conf import settings
from django.utils import timezone

from accounts import pool
from accounts.pool import Member, Pool
from lib.snapshot import FRESH
from relay import (
    attempt,
    breaker,
    choice,
    drain,
    effects,
    outcomes,
    places,
    renewing,
    reserving,
    routing,
    verdicts,
)
from relay.answer import Answer
from relay.bench import bench
from relay.budget import budget
from relay.capabilities import offers
from relay.errors import PoolLimited, PoolUnavailable, UpstreamUnavailable
from relay.facts import Facts, Failed
from relay.request import ClientRequest
from relay.trail import Attempt, Trail
from relay.verdicts import Effect, Row
from relay.waiting import Wish

MOST_ATTEMPTS = 3
# An answer that is not a stream comes whole, minutes later; the API's own limit is ten minutes.
NON_STREAM_FACTOR = 2
LAST_SECONDS = 30.0
PATIENT_CLIENT = 2


@dataclass(slots=True)
class Walk:
    """How far one request has come: what may still be tried, and with which credential."""

    deadline: float
    pool: Pool
    order: list[int]
    tried: set[int] = field(default_factory=set)
    renewed: dict[int, Member] = field(default_factory=dict)
    rechecked: set[int] = field(default_factory=set)
    same_left: int = 1
    others_left: int = 1
    attempts: int = 0
    fits: Fits | None = None
    unseen: int | None = None
    is_spared: bool = False


async def open(request: ClientRequest, trail: Trail) -> Answer:
    """Return the answer to deliver; raise RelayError when none can be had.

    Nothing has gone to the client when this returns; from then on nothing may be tried again.
    """
    is_spared = breaker.host.refuses()
    if is_spared and not (breaker.host.has_turn() or await _is_any_elsewhere()):
        raise UpstreamUnavailable(retry_after=random.randint(1, 5))
    budget.earn()
    chosen = await choice.choose(request, trail, may_probe=not is_spared)
    walk = Walk(_deadline(request), chosen.pool, chosen.order)
    first = _member(walk, chosen.order[0])
    if is_spared and not _is_elsewhere(first):
        is_spared = not breaker.host.takes_turn()
    walk.is_spared = trail.is_spared = is_spared
    following = _other(request, walk, first) if is_spared and not _is_elsewhere(first) else first
    waited = 0.0
    while following is not None:
        whom = functools.partial(_able, request, walk, following.id)
        wish = Wish(request, trail, whom, counted=walk.unseen)
        place = await places.admit(following, wish, walk.deadline)
        if place is None:
            break
        with place:
            member = await _with_live_token(place.member, walk)
            if member is None:
                trail.attempts.append(Attempt(place.member.id, "D03"))
                following = _other(request, walk, place.member)
                continue
            walk.attempts += 1
            trail.names[member.id], trail.asking = member.name, member.id
            limit = asyncio.timeout_at(walk.deadline)
            got, known = await attempt.make(request, member, limit)
            if known.failed is Failed.STALE:
                # Nobody has seen the request: on a new connection it is still the same one (D04).
                trail.attempts.append(Attempt(member.id, "D04", waited=round(waited, 3)))
                walk.attempts, waited = walk.attempts + 1, 0.0
                limit = asyncio.timeout_at(walk.deadline)
                got, known = await attempt.make(request, member, limit, fresh=True)
            place.follow(got)
        try:
            walk.unseen = member.id if known.failed is Failed.NOT_CONNECTED else None
            row = verdicts.judge(known, alone=member.endpoint is not None)
            trail.attempts.append(Attempt(member.id, row.id, known.status, round(waited, 3)))
            outcomes.judged(row, place, request.key.id, walk.pool)
            if trail.probe == member.id and reserving.may_return(row, known, member):
                await effects.reopen(row, member)
            if row.delivers and got is not None:
                return got
            following = await _following(row, known, member, request, walk)
        except BaseException:
            # The client hung up, as a rule: nobody else would close it, nor leave its place.
            if got is not None:
                got.close()
            raise
        if following is None and row.ends is None and got is not None:
            return got.as_error(known.event) if known.event else got
        if got is not None:
            got.close()
        if following is None and row.ends not in (None, PoolLimited, PoolUnavailable):
            raise row.ends
        waited = random.uniform(*row.wait)
        if following is not None and waited:
            await asyncio.sleep(waited)
    if is_spared:
        raise UpstreamUnavailable(retry_after=random.randint(1, 5))
    latest = await pool.snapshot.get(max_age=FRESH)
    raise routing.nobody(latest, bench, request, timezone.now())


async def _following(
    row: Row, known: Facts, member: Member, request: ClientRequest, walk: Walk
) -> Member | None:
    """Return whom to try next: the same account once, then another; None ends the walk."""
    if not (row.proven or _may_retry(row, request, walk)):
        await effects.apply(row, known, member, request.model)
        return None
    if row.same and walk.same_left and (again := await _again(row, known, member, walk)):
        return again
    if row.effect is Effect.RENEW and member.id in walk.rechecked:
        await effects.reject_credential(row, known, member)
    await effects.apply(row, known, member, request.model)
    if not row.other or not (row.proven or walk.others_left):
        return None
    walk.others_left -= 0 if row.proven else 1
    walk.fits = FITTING.get(row.id, walk.fits)
    return _other(request, walk, member)


def _may_retry(row: Row, request: ClientRequest, walk: Walk) -> bool:
    """Tell whether a retry is worth its cost: few in all, none at the end of the time.

    A client that repeats a request by itself (the SDKs say so) gets none on top.
    """
    if walk.attempts >= MOST_ATTEMPTS or drain.is_draining():
        return False
    if not row.charged or not (row.same or row.other):
        return True
    left = walk.deadline - asyncio.get_running_loop().time()
    return left > LAST_SECONDS and request.retry_count < PATIENT_CLIENT and budget.spend()


async def _again(row: Row, known: Facts, member: Member, walk: Walk) -> Member | None:
    """Return the same account for its one further try, with a newer token if it needs one."""
    walk.same_left -= 1
    if row.effect is not Effect.RENEW:
        return member
    newer: Member | None = member
    if known.can_refresh:
        newer = _remember(await renewing.renewed(member, rejected=True), walk)
    if newer is None:
        await effects.rest(member, row.reason)
    else:
        walk.rechecked.add(member.id)
    return newer


def _other(request: ClientRequest, walk: Walk, member: Member) -> Member | None:
    """Return the next account that was not tried, in the order of turns, or None."""
    walk.tried.add(member.id)
    return next(iter(_able(request, walk)), None)


def _able(
    request: ClientRequest, walk: Walk, first: int | None = None, view: Pool | None = None
) -> list[Member]:
    """Return the accounts that may be tried now, in the order of turns, but `first` before all.

    While Anthropic's API is spared, those are of another upstream. A newer view of the pool is the
    walk's from then on.
    """
    walk.pool = view or walk.pool
    found = routing.candidates(walk.pool, bench, request, timezone.now(), tried=walk.tried)
    ranked = [first] if first in found.usable else []
    for group in (found.first, found.usable):
        ranked += [account for account in walk.order if account in group]
        ranked += group
    members = [_member(walk, account) for account in dict.fromkeys(ranked)]
    if walk.is_spared:
        members = list(filter(_is_elsewhere, members))
    return [m for m in members if walk.fits is None or walk.fits(m, request)]


def _serves_any_client(member: Member, request: ClientRequest) -> bool:
    return member.provider.serves_any_client


def _has_the_model(member: Member, request: ClientRequest) -> bool:
    return offers.lists(member, request.model) or bench.serves(member.id, request.model)


async def _is_any_elsewhere() -> bool:
    return any(map(_is_elsewhere, (await pool.snapshot.get()).members))


def _is_elsewhere(member: Member) -> bool:
    """Tell whether an account is at an upstream of its own, which Anthropic's troubles spare."""
    return member.endpoint is not None


# After these answers another account is worth a try only if it is known to be of another sort.
Fits = Callable[[Member, ClientRequest], bool]
FITTING: dict[str, Fits] = {"D07b": _serves_any_client, "D12": _has_the_model}


def _member(walk: Walk, account: int) -> Member:
    member = walk.renewed.get(account) or walk.pool.member(account)
    assert member is not None, "accounts are chosen from the pool"
    return member


async def _with_live_token(member: Member, walk: Walk) -> Member | None:
    """Return the member with a token that can be used now, or None (D03)."""
    return _remember(await renewing.with_live_token(member), walk)


def _remember(member: Member | None, walk: Walk) -> Member | None:
    """Keep a renewed token for the rest of this walk: its view of the pool is older."""
    if member is not None:
        walk.renewed[member.id] = member
    return member


def _deadline(request: ClientRequest) -> float:
    seconds = settings.CONFIG.relay_timeout * (1 if request.stream else NON_STREAM_FACTOR)
    return asyncio.get_running_loop().time() + float(seconds)
