"""The one loop: choose an account, try, judge, and either deliver or go on."""

from __future__ import annotations

import asyncio
import functools
import random
from dataclasses import dataclass, field, replace
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from accounts import facts, pool, tokens
from accounts.pool import Member, Pool
from accounts.renewal import Outcome
from accounts.states import is_ahead
from lib.snapshot import FRESH
from providers.registry import PROVIDERS
from relay import answer, breaker, drain, effects, headers, outcomes, routing, strategies, verdicts
from relay.answer import Answer
from relay.bench import bench
from relay.budget import budget
from relay.errors import PoolLimited, PoolUnavailable, UpstreamUnavailable
from relay.facts import Facts, Failed
from relay.ramp import ramp
from relay.request import ClientRequest
from relay.trail import Attempt, Trail
from relay.upstream import aiohttp
from relay.upstream.base import Lost, NotConnected, Stale
from relay.verdicts import Effect, Row
from sessions_limit import sessions

MOST_ATTEMPTS = 3
# An answer that is not a stream comes whole, minutes later; the API's own limit is ten minutes.
NON_STREAM_FACTOR = 2
EXPIRING = timedelta(seconds=60)
LAST_SECONDS = 30.0
PATIENT_CLIENT = 2


@dataclass(slots=True)
class Walk:
    """How far one request has come: what may still be tried, and with which credential."""

    deadline: float
    pool: Pool
    order: list[int] = field(default_factory=list)
    tried: set[int] = field(default_factory=set)
    renewed: dict[int, Member] = field(default_factory=dict)
    rechecked: set[int] = field(default_factory=set)
    same_left: int = 1
    others_left: int = 1
    attempts: int = 0
    fresh: bool = False


async def open(request: ClientRequest, trail: Trail) -> Answer:
    """Return the answer to deliver; raise RelayError when none can be had.

    Nothing has gone to the client when this returns; from then on nothing may be tried again.
    """
    if not breaker.host.admits():
        raise UpstreamUnavailable(retry_after=random.randint(1, 5))
    budget.earn()
    walk = Walk(_deadline(request), await pool.snapshot.get())
    following: Member | None = await _choose(request, walk, trail)
    waited = 0.0
    while following is not None:
        member = await _with_live_token(following, walk)
        if member is None:
            trail.attempts.append(Attempt(following.id, "D03"))
            following = _other(request, walk, following)
            continue
        got, known = await _attempt(request, member, walk)
        row = verdicts.judge(known)
        trail.attempts.append(Attempt(member.id, row.id, known.status, round(waited, 3)))
        outcomes.judged(row, member.id, request.key.id, walk.pool)
        if row.delivers and got is not None:
            return got
        try:
            following = await _following(row, known, member, request, walk)
        except BaseException:
            # The client hung up: nobody else would close it.
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
    latest = await pool.snapshot.get(max_age=FRESH)
    raise routing.nobody(latest, bench, request, timezone.now())


async def _choose(request: ClientRequest, walk: Walk, trail: Trail) -> Member:
    """Return the first account: the session's own, or the next in turn."""
    now = timezone.now()
    found = routing.candidates(walk.pool, bench, request, now)
    if not found.usable:
        # Nobody is turned away by a view of the pool that is seconds old.
        walk.pool = await pool.snapshot.get(max_age=FRESH)
        found = routing.candidates(walk.pool, bench, request, now)
    trail.candidates, trail.skipped = found.usable, found.skipped
    if not found.usable:
        raise routing.nobody(walk.pool, bench, request, now)
    if request.session is not None and settings.CONFIG.sticky_sessions:
        key = request.key.id
        account = await sessions.bind(key, request.session, found.first, found.usable)
    else:
        deal = strategies.STRATEGIES[settings.CONFIG.routing_strategy]
        account = deal(found.first, sessions.turn())[0]
    trail.bound = account
    if not ramp.admits(account):
        # Of requests that came at once only the first may meet an account that has just returned.
        account = next(filter(ramp.admits, found.first), account)
    ids = [member.id for member in walk.pool.members]
    walk.order = strategies.round_robin(ids, ids.index(account))
    return _member(walk, account)


async def _following(
    row: Row, known: Facts, member: Member, request: ClientRequest, walk: Walk
) -> Member | None:
    """Return whom to try next: the same account once, then another; None ends the walk."""
    if row.id == "D04":
        walk.fresh = True
        return member
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
    return _other(request, walk, member, permitted_only=row.id == "D07b")


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
    newer = await _renew(member, walk, rejected=True) if known.can_refresh else member
    if newer is None:
        await effects.rest(member, row.reason)
    else:
        walk.rechecked.add(member.id)
    return newer


def _other(
    request: ClientRequest, walk: Walk, member: Member, *, permitted_only: bool = False
) -> Member | None:
    """Return the next account that was not tried, in the order of turns, or None."""
    walk.tried.add(member.id)
    found = routing.candidates(walk.pool, bench, request, timezone.now(), tried=walk.tried)
    ranked = [account for account in walk.order if account in found.first]
    ranked += [account for account in walk.order if account in found.usable]
    members = (_member(walk, account) for account in ranked)
    if permitted_only:
        members = (m for m in members if PROVIDERS[m.kind].serves_any_client)
    return next(members, None)


def _member(walk: Walk, account: int) -> Member:
    member = walk.renewed.get(account) or walk.pool.member(account)
    assert member is not None, "accounts are chosen from the pool"
    return member


async def _with_live_token(member: Member, walk: Walk) -> Member | None:
    """Return the member with a token that outlives the next minute (D03).

    A token that could not be renewed serves to its very end; None when it is past that.
    """
    now = timezone.now()
    expires = member.expires_at
    if expires is None or is_ahead(expires - EXPIRING, now):
        return member
    newer = await _renew(member, walk)
    return newer or (member if is_ahead(expires, timezone.now()) else None)


async def _renew(member: Member, walk: Walk, *, rejected: bool = False) -> Member | None:
    """Return the member with a newer token; None when there is none to be had now."""
    renewal = await tokens.renewed(member.id, member.credential, rejected=rejected)
    if renewal.outcome is not Outcome.RENEWED or renewal.credential is None:
        return None
    newer = replace(
        member,
        credential=renewal.credential,
        secret=renewal.secret,
        expires_at=renewal.expires_at,
    )
    walk.renewed[member.id] = newer
    return newer


async def _attempt(
    request: ClientRequest, member: Member, walk: Walk
) -> tuple[Answer | None, Facts]:
    """Make one attempt; return its answer, if there is one, and the facts to judge it by."""
    provider = PROVIDERS[member.kind]
    sent = provider.authenticate(headers.to_upstream(request.headers), member.secret)
    url = settings.CONFIG.upstream_base_url + request.target
    walk.attempts += 1
    fresh, walk.fresh = walk.fresh, False
    response, got = None, None
    ramp.enter(member.id)
    try:
        async with asyncio.timeout_at(walk.deadline):
            response = await aiohttp.client().send(
                request.method, url, sent, request.body, fresh=fresh
            )
            now = timezone.now()
            got, known = await answer.read(response, provider, request.stream, now)
            facts.note(member.id, now, got.limits.windows)
            return got, known
    except TimeoutError:
        return None, Facts(failed=Failed.TIMED_OUT)
    except NotConnected:
        return None, Facts(failed=Failed.NOT_CONNECTED)
    except Stale:
        return None, Facts(failed=Failed.STALE)
    except Lost:
        return None, Facts(failed=Failed.LOST)
    finally:
        if got is not None:
            got.on_close = functools.partial(ramp.leave, member.id)
        else:
            ramp.leave(member.id)
            if response is not None:
                response.close()


def _deadline(request: ClientRequest) -> float:
    seconds = settings.CONFIG.relay_timeout * (1 if request.stream else NON_STREAM_FACTOR)
    return asyncio.get_running_loop().time() + float(seconds)
