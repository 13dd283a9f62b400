"""Token refresh, one at a time per account over all processes (relay rules, section 5)."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID
from weakref import WeakKeyDictionary

from django.db import Error as DatabaseError
from django.utils import timezone

from accounts import generations, health, leases, oauth, parking, schedule, waits
from accounts.leases import Lease
from accounts.parking import Pair
from accounts.renewal import Outcome, Renewal, Wish
from lib import counters
from lib.crypto import DecryptError
from lib.db import in_thread

__all__ = ["Outcome", "Renewal", "refresh", "refresh_due", "renewed", "settled"]

WAIT_SECONDS = 10.0
POLL_SECONDS = (0.01, 0.05)
CONFIRM_SECONDS = 2.0
GONE = timedelta(seconds=60)
COOLDOWN = timedelta(seconds=60)
COMMIT_PATIENCE = 2.0
COMMIT_SECONDS, LONGEST_COMMIT_PAUSE, KEEP_SECONDS = 0.1, 30.0, 60.0
AT_ONCE = 8
WAITS_FOR_THE_DATABASE = Renewal(Outcome.TRY_LATER, why="the new token waits for the database")
log = logging.getLogger(__name__)

Walks = dict[Wish, "asyncio.Task[Renewal]"]
Unstored = dict[tuple[int, UUID], "asyncio.Task[Renewal]"]
_walks: WeakKeyDictionary[asyncio.AbstractEventLoop, Walks] = WeakKeyDictionary()
_unstored: WeakKeyDictionary[asyncio.AbstractEventLoop, Unstored] = WeakKeyDictionary()


async def renewed(account: int, seen: UUID, *, rejected: bool = False) -> Renewal:
    """Return a newer generation than `seen`, refreshed here or by whoever is at it already.

    `rejected`: the upstream answered 401 to `seen`. Waits at most WAIT_SECONDS; a refresh that
    takes longer, or whose caller goes away, continues on its own. Nobody waits for a token that is
    here and that the database does not take.
    """
    if (account, seen) in _storing():
        return WAITS_FOR_THE_DATABASE
    walk = _walk(Wish(account, seen, rejected=rejected))
    done, _ = await asyncio.wait({walk}, timeout=WAIT_SECONDS)
    return walk.result() if done else Renewal(Outcome.TRY_LATER, why="still refreshing")


async def refresh(account: int, *, by: str, retry: bool = False) -> Renewal:
    """Refresh an account now because an operator asks for it; `retry` dials an `invalid` one."""
    seen = await in_thread(schedule.current, account)
    if seen is None:
        return Renewal(Outcome.DEAD, why="removed")
    return await _to_the_end(Wish(account, seen, rejected=retry, retry=retry, by=by))


async def refresh_due(now: datetime | None = None) -> int:
    """Refresh the accounts whose token is near its end, and return how many were."""
    now = now or timezone.now()
    await in_thread(generations.commit_parked)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(wish: Wish) -> Renewal:
        async with gate:
            return await _to_the_end(wish)

    due = await in_thread(schedule.due, now)
    # One account's trouble must not end the loop, and with it the others' calls, half-way.
    ended = await asyncio.gather(*(one(wish) for wish in due), return_exceptions=True)
    for wish, end in zip(due, ended, strict=True):
        if isinstance(end, BaseException):
            log.error("refresh account:%d: %s", wish.account, type(end).__name__, exc_info=end)
    return sum(isinstance(end, Renewal) and end.outcome is Outcome.RENEWED for end in ended)


async def settled() -> None:
    """Wait until no refresh of this loop is under way (before its process ends, and in tests)."""
    walks, storing = _walks.get(asyncio.get_running_loop(), {}), _storing()
    while walks or storing:
        await asyncio.wait({*walks.values(), *storing.values()})


def _walk(wish: Wish) -> asyncio.Task[Renewal]:
    """Return the task that fulfils a wish; nobody cancels it, all who have the wish share it."""
    walks = _walks.setdefault(asyncio.get_running_loop(), {})
    if wish not in walks:
        walks[wish] = asyncio.create_task(_refresh(wish))
        walks[wish].add_done_callback(lambda _: walks.pop(wish))
    return walks[wish]


async def _to_the_end(wish: Wish) -> Renewal:
    """Fulfil a wish for somebody whose loop ends with it."""
    renewal = await _walk(wish)
    storing = _storing().get((wish.account, wish.seen))
    return await storing if storing else renewal


def _storing() -> Unstored:
    return _unstored.setdefault(asyncio.get_running_loop(), {})


async def _refresh(wish: Wish) -> Renewal:
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_SECONDS
    try:
        while loop.time() < end:
            claimed = await in_thread(leases.claim, wish)
            if isinstance(claimed, Renewal):
                return claimed
            if claimed is not None:
                return await _call(claimed, wish)
            await asyncio.sleep(random.uniform(*POLL_SECONDS))
    except DatabaseError as error:
        log.warning("refresh account:%d: %s", wish.account, type(error).__name__)
        return Renewal(Outcome.TRY_LATER, why="the database is away")
    except DecryptError as error:
        log.error("refresh account:%d: %s", wish.account, error)
        return Renewal(Outcome.TRY_LATER, why="its credential does not open with CREDENTIAL_KEYS")
    return Renewal(Outcome.TRY_LATER, why="another process is still refreshing")


async def _call(lease: Lease, wish: Wish) -> Renewal:
    try:
        answer = await oauth.renew(lease.refresh_token, proxy=lease.proxy)
    except oauth.OutcomeUnknown as error:
        return await _later(lease, wish, str(error), None, unknown=error.sent)
    except oauth.TokenEndpointError as error:
        return await _refused(lease, wish, error)
    counters.add("job_calls", "refresh", "succeeded")
    token = answer.refresh_token or lease.refresh_token
    return await _keep(Pair(lease.account, lease.seen, answer, token, timezone.now()), wish)


async def _keep(pair: Pair, wish: Wish) -> Renewal:
    """Commit a rotated pair before anything uses it; go on without those who wait if that takes."""
    committing = asyncio.ensure_future(in_thread(generations.commit, pair, wish))
    done, _ = await asyncio.wait({committing}, timeout=COMMIT_PATIENCE)
    if done and not isinstance(committing.exception(), DatabaseError):
        return committing.result()
    place, storing = (pair.account, pair.seen), _storing()
    storing[place] = asyncio.create_task(_store(pair, wish, committing))
    storing[place].add_done_callback(lambda _: storing.pop(place))
    return WAITS_FOR_THE_DATABASE


async def _store(pair: Pair, wish: Wish, committing: asyncio.Future[Renewal]) -> Renewal:
    """Park a rotated pair and commit it, however often that takes."""
    loop = asyncio.get_running_loop()
    end, pause, is_parked = loop.time() + KEEP_SECONDS, COMMIT_SECONDS, False
    while True:
        is_parked = await in_thread(parking.park, pair) or is_parked
        try:
            renewal = await committing
        except DatabaseError as error:
            log.error("store the new token of account:%d: %s", pair.account, type(error).__name__)
        else:
            if is_parked:
                await in_thread(parking.forget, pair)
            return renewal
        if is_parked and loop.time() > end:
            return WAITS_FOR_THE_DATABASE
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_COMMIT_PAUSE)
        committing = asyncio.ensure_future(in_thread(generations.commit, pair, wish, late=True))


async def _refused(lease: Lease, wish: Wish, error: oauth.TokenEndpointError) -> Renewal:
    match error.refusal:
        case oauth.Refusal.FINAL:
            return await _dead(lease)
        case oauth.Refusal.GONE:
            gone_at = lease.gone_at or timezone.now()
            if timezone.now() - gone_at >= GONE:
                return await _dead(lease)
            lease = replace(lease, gone_at=gone_at)
            asked = error.retry_after or str(GONE.seconds)
            return await _later(lease, wish, str(error), error.status, asked)
        case oauth.Refusal.TRANSIENT:
            return await _later(lease, wish, str(error), error.status, error.retry_after)
        case oauth.Refusal.UNKNOWN:
            asked_for = error.retry_after
            return await _later(lease, wish, str(error), error.status, asked_for, unknown=True)


async def _dead(lease: Lease) -> Renewal:
    """Believe a refusal only if nobody else has rotated the token, now and a moment later."""
    for pause in (0.0, CONFIRM_SECONDS):
        await asyncio.sleep(pause)
        if newer := await in_thread(generations.newer, lease.account, lease.seen):
            return newer
    reason = "refresh_interrupted" if lease.interrupted else "refresh_rejected"
    await in_thread(leases.reject, lease, reason)
    counters.add("job_calls", "refresh", "failed")
    return Renewal(Outcome.DEAD, why=reason)


async def _later(
    lease: Lease,
    wish: Wish,
    why: str,
    status: int | None,
    retry_after: str | None = None,
    *,
    unknown: bool = False,
) -> Renewal:
    now, attempt = timezone.now(), lease.failures + 1
    asked = waits.retry_after(retry_after, now)
    seconds = waits.policy(status).wait(attempt, at_least=asked)
    until = now + timedelta(seconds=seconds)
    # What was unknown before this call is no better known after a refusal to look at it.
    keep_intent = unknown or lease.interrupted
    told = {"attempt": attempt, "seconds": round(seconds, 1)}
    await in_thread(leases.give_back, lease, until, keep_intent=keep_intent, why=why, **told)
    counters.add("job_calls", "refresh", "later")
    counters.add("backoff_seconds", "refresh", by=seconds)
    log.warning("refresh account:%d: %s; waits until %s", lease.account, why, until.isoformat())
    is_over = lease.expires_at is not None and lease.expires_at <= now
    if is_over or wish.rejected:
        await in_thread(health.cool_down, lease.account, now + COOLDOWN, "refresh_failed")
    return Renewal(Outcome.TRY_LATER, why=why)
