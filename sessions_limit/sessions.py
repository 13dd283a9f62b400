"""Sessions of clients as this process knows them: one that it has just seen costs no Redis call."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import redis
from django.conf import settings

from lib import counters
from lib.batch import Away, batch
from sessions_limit import alone, limiter, sightings, sticky
from sessions_limit.errors import Revoked
from sessions_limit.identity import DEFAULT, Client
from sessions_limit.keys import Key
from sessions_limit.limiter import Banned, Claim, Life, Scope
from sessions_limit.scopes import ANY as ANY
from sessions_limit.scopes import full, scopes_of

SEEN_SECONDS = 5.0
MOST_UNANSWERED = 1000
log = logging.getLogger(__name__)


Claims = Callable[[], Awaitable[Claim | None]]
# The account that a session has claimed just now, if it has.
Claimed = int | None


@dataclass(slots=True, eq=False)
class Lease:
    """One session here: what it counts, what it counts in, and when Redis was last told of it.

    `is_opened_here` tells that this process has opened it, no other one. Times are those of the
    monotonic clock, but `since` is in epoch seconds by the clock of Redis.
    """

    name: str
    key: int
    client: Client
    session: str
    since: float | None = None
    ends_at: float = float("-inf")
    told_at: float = float("-inf")
    used_at: float = float("-inf")
    in_flight: int = 0
    streams: int = 0
    requests: int = 0
    reported: int = 0
    is_opened_here: bool = False
    scopes: tuple[str, ...] = ()
    joining: asyncio.Task[Claimed] | None = field(default=None, repr=False)

    def lives(self, now: float) -> bool:
        """Tell whether it is open, as far as this process knows."""
        return self.since is not None and self.ends_at > now

    @property
    def uid(self) -> str:
        """The name of this life of the session, the same in all processes."""
        text = f"{self.name}@{self.since or 0.0:.6f}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


leases: dict[str, Lease] = {}
# Sessions that Redis was asked to admit and did not answer about: it may yet do so.
_unanswered: set[str] = set()


def lease_of(key: Key, client: Client, session: str | None) -> Lease:
    """Return what this process knows of a session; None is the one of whoever names none."""
    name = name_of(client, session)
    lease = leases.get(name)
    if lease is None:
        lease = leases[name] = Lease(name, key.id, client, session or DEFAULT)
    if not lease.scopes or lease.key != key.id:
        lease.scopes = tuple(scope.name for scope in scopes_of(client, key.id))
    # As it was last seen: people move, and those behind one address may have several keys.
    lease.key, lease.client = key.id, client
    return lease


def name_of(client: Client, session: str | None) -> str:
    """Return the name by which a session is limited, shown and revoked."""
    return f"{client.name}/{session or DEFAULT}"


async def join(lease: Lease, key: Key, claim: Claims | None = None) -> Claimed:
    """Open a session or keep it open, and return the account that it claims; raise Refused.

    `claim` is only asked when Redis is. Requests that come at the same moment share its answer. One
    that is open here goes on whatever that says, so it does not wait for a Redis that is away.
    """
    now = lease.used_at = time.monotonic()
    if lease.lives(now) and now - lease.told_at < min(SEEN_SECONDS, _life().idle / 3):
        return None
    joining = lease.joining
    if joining is None or joining.done() or not _is_ours(joining):
        joining = lease.joining = asyncio.create_task(_join(lease, key, claim))
        # Whoever began it may hang up; then nobody hears how it ended.
        joining.add_done_callback(_heard)
    if lease.lives(now) and batch().is_failing:
        _live_on(lease)
        return None
    return await asyncio.shield(joining)


async def leave(lease: Lease) -> bool:
    """End a session that was opened here in vain, unless it is used by now; tell whether it is."""
    if lease.in_flight or lease.requests or not lease.is_opened_here:
        return True
    lease.since = None
    try:
        await limiter.end(lease.name)
    except (redis.RedisError, OSError) as error:
        log.warning("end session: %s", type(error).__name__)
    return lease.in_flight > 0 or lease.since is not None


async def withdraw() -> None:
    """Take back what Redis was asked to admit without an answer: it may have taken a slot for it.

    What was admitted here meanwhile is told again by `renew`, with its own age.
    """
    for name in list(_unanswered):
        try:
            await limiter.end(name)
        except (redis.RedisError, OSError):
            return
        _unanswered.discard(name)


def is_due(lease: Lease, *, anyway: bool = False) -> bool:
    """Tell whether Redis is to hear of a session: it was used, or is, since it was last told.

    With `anyway`, also of one that is only open: Redis was emptied, and has to know what counts.
    """
    # What has ended is not to come back: its slot may be another's by now.
    lives = lease.lives(time.monotonic()) and (anyway or lease.used_at > lease.told_at)
    return lease.since is not None and (lease.in_flight > 0 or lives)


async def renew(lease: Lease, *, anyway: bool = False) -> None:
    """Tell Redis of a session if it is due; raise Revoked. While Redis is away it lives on here."""
    if not is_due(lease, anyway=anyway):
        return
    now = time.monotonic()
    if lease.in_flight:
        lease.used_at = now
    try:
        told = await limiter.admit(
            lease.name, scopes_of(lease.client, lease.key), _life(), since=lease.since
        )
    except (redis.RedisError, OSError) as error:
        alone.failed(error)
        _live_on(lease)
        lease.told_at = float("-inf")
        return
    alone.answered()
    _unanswered.discard(lease.name)
    if isinstance(told, Banned):
        lease.since = None
        raise Revoked(told.seconds)
    assert isinstance(told, limiter.Admitted), "what lives is never refused"
    # Unless it was left meanwhile: then Redis has heard that after this.
    if lease.since is not None:
        _note(lease, told.since, told.left, now)


def drop(lease: Lease) -> None:
    """Forget one that was refused: whoever tries many fills no memory."""
    is_joining = lease.joining is not None and not lease.joining.done()
    if lease.since is None and not lease.in_flight and not is_joining:
        leases.pop(lease.name, None)


def report(lease: Lease) -> None:
    """Tell the record of a session what has changed since it was last told."""
    if lease.since is None:
        return
    lease.reported = lease.requests
    bound = None if lease.session == DEFAULT else sticky.seen(lease.key, lease.session)
    sightings.append(
        {
            "uid": lease.uid,
            "client": lease.client.name,
            "session": lease.session,
            "key": lease.key,
            "address": lease.client.address,
            "user_agent": lease.client.user_agent,
            "account": bound,
            "process": PROCESS,
            "since": lease.since,
            "seen": time.time(),
            "requests": lease.requests,
        }
    )


def forget_ended() -> None:
    """Drop the sessions that have ended."""
    now = time.monotonic()
    for name in [n for n, lease in leases.items() if not lease.in_flight and not lease.lives(now)]:
        del leases[name]


def reset() -> None:
    """Forget everything (for tests)."""
    leases.clear()
    _unanswered.clear()
    alone.reset()


PROCESS = f"{os.getpid():x}-{os.urandom(4).hex()}"


async def _join(lease: Lease, key: Key, claims: Claims | None) -> Claimed:
    claim = await claims() if claims is not None else None
    scopes = scopes_of(lease.client, key.id, key.max_sessions)
    now = time.monotonic()
    # What lives here goes on, whatever Redis has forgotten and however full it is.
    since = lease.since if lease.lives(now) else None
    try:
        told = await limiter.admit(lease.name, scopes, _life(), claim=claim, since=since)
    except (redis.RedisError, OSError) as error:
        alone.failed(error)
        if since is None:
            if not isinstance(error, Away) and len(_unanswered) < MOST_UNANSWERED:
                _unanswered.add(lease.name)
            _admit_alone(lease, scopes)
        else:
            _live_on(lease)
        return None
    alone.answered()
    _unanswered.discard(lease.name)
    if isinstance(told, limiter.Admitted):
        _note(lease, told.since, told.left, now)
        if since is None:
            lease.is_opened_here = told.is_new
        if claim is not None and told.bound.account is not None:
            sticky.remember(claim.binding, told.bound.account)
        return told.bound.account if told.bound.is_claimed else None
    lease.since = None
    if isinstance(told, Banned):
        raise Revoked(told.seconds)
    raise full(told.scope, told.seconds)


def _admit_alone(lease: Lease, scopes: Iterable[Scope]) -> None:
    """Go on with a session that another process has open, or decide on a new one."""
    now = time.monotonic()

    def left(scope: Scope) -> list[float]:
        return [o.ends_at - now for o in leases.values() if scope.name in o.scopes and o.lives(now)]

    since = alone.open_elsewhere(lease.name)
    lease.is_opened_here = since is None
    if since is None:
        alone.decide(scopes, left, _life().idle)
        counters.add("sessions_admitted_alone")
        # As exact as Redis keeps it, so that it stays the same life there.
        since = round(time.time(), 6)
    _note(lease, since, _life().idle, now)
    _live_on(lease)
    lease.told_at = float("-inf")


def _live_on(lease: Lease) -> None:
    """Let a session be idle from its last use on, and live as long as any."""
    age = time.time() - (lease.since or 0.0)
    lease.ends_at = lease.used_at + min(_life().idle, _life().longest - age)


def _note(lease: Lease, since: float, left: float, asked_at: float) -> None:
    """Note what Redis told; counted from before it was asked, it ends here no later than there."""
    if lease.since != since:
        # Another life: what was counted is told of already, under the name of the last one.
        lease.requests = lease.reported = 0
    lease.since, lease.told_at, lease.ends_at = since, asked_at, asked_at + left


def _life() -> Life:
    return Life(settings.CONFIG.session_idle_seconds, settings.CONFIG.session_max_seconds)


def _is_ours(task: asyncio.Task[Claimed]) -> bool:
    return task.get_loop() is asyncio.get_running_loop()


def _heard(task: asyncio.Task[Claimed]) -> None:
    if not task.cancelled():
        task.exception()
