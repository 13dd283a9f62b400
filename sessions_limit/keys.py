"""Relay keys as the data plane recognises them: from a snapshot, and at once when they are new."""

from __future__ import annotations

import asyncio
import functools
import hmac
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from django.db.models import Q
from django.utils import timezone

from lib import bus, db
from lib.peer import Network, networks
from lib.snapshot import FRESH, Snapshot
from sessions_limit.issuing import KEYS as KEYS
from sessions_limit.issuing import create as create
from sessions_limit.issuing import revoke as revoke
from sessions_limit.keytext import PREFIX as PREFIX
from sessions_limit.keytext import hash_of, is_key
from sessions_limit.models import ClientKey

UNKNOWN_KEPT = 4096
LOOKUPS_AT_ONCE = 2


Period = Literal["day", "week", "month"]
PERIODS: tuple[Period, ...] = ("day", "week", "month")


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a key may spend in a period, in tokens or in micro-USD."""

    period: Period
    unit: Literal["tokens", "cost"]
    most: int


@dataclass(frozen=True, slots=True)
class Key:
    """A relay key as the data plane knows it; a limit that is None does not hold.

    A key with `labels` is served only by accounts that have one of them, one with an `account` only
    by that. `models` are patterns (`claude-haiku-*`), `networks` where its clients may be; empty:
    all. `max_sessions` of -1 is any number.
    """

    id: int
    name: str
    expires_at: datetime | None
    labels: frozenset[str] = frozenset()
    account: int | None = None
    models: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_in_flight: int | None = None
    max_sessions: int | None = None
    budgets: tuple[Budget, ...] = ()
    time_zone: str = "UTC"
    is_passthrough: bool = False


async def authenticate(text: str) -> Key | None:
    """Return the key that `text` is, or None for an unknown, expired, disabled or revoked one."""
    if not is_key(text):
        return None
    digest = hash_of(text)
    key = (await snapshot.get()).get(digest) or await _look_up(digest)
    return key if key is not None and _lasts(key) else None


def recognise(text: str) -> Key | None:
    """Return the same from the database, blocking, by one query."""
    key = _find(hash_of(text)) if is_key(text) else None
    return key if key is not None and _lasts(key) else None


async def still_open(ids: Collection[int]) -> set[int]:
    """Return which of these keys may still be used; the database is asked of those not known."""
    known = {key.id for key in (await snapshot.get(max_age=FRESH)).values()}
    unknown = set(ids) - known
    found = await db.in_thread(_usable_among, unknown) if unknown else set()
    return (set(ids) & known) | found


def load() -> dict[str, Key]:
    """Read every key that may be used, by its hash; one that was replaced a while ago by both."""
    known: dict[str, Key] = {}
    for row in ClientKey.objects.filter(_usable()):
        known[row.hash] = _key(row)
        if row.previous_hash and row.previous_until is not None:
            known[row.previous_hash] = _previous(row, row.previous_until)
    return known


snapshot: Snapshot[dict[str, Key]] = Snapshot(load, topic=KEYS)
_unknown: OrderedDict[str, None] = OrderedDict()
_looking: dict[str, asyncio.Future[Key | None]] = {}


def _forget_unknown() -> None:
    _unknown.clear()


bus.on(KEYS, _forget_unknown)


async def _look_up(digest: str) -> Key | None:
    """Ask the database once about a key the snapshot does not know.

    It makes a key work the moment it was created, even when the hint was lost. Bounded twice, so
    that guessing cannot keep the database busy: what is unknown is remembered, and no more than
    LOOKUPS_AT_ONCE are asked at a time. Parallel requests with one new key share its look-up.
    """
    looking = _looking.get(digest)
    if looking is None:
        if digest in _unknown or len(_looking) >= LOOKUPS_AT_ONCE:
            return None
        looking = _looking[digest] = asyncio.ensure_future(db.in_thread(_find, digest))
        # Counted until it is over: a client that hangs up at once must not make room for another.
        looking.add_done_callback(functools.partial(_looked_up, digest))
    key = await asyncio.shield(looking)
    if key is None:
        _unknown[digest] = None
        if len(_unknown) > UNKNOWN_KEPT:
            _unknown.popitem(last=False)
    return key


def _looked_up(digest: str, looking: asyncio.Future[Key | None]) -> None:
    _looking.pop(digest, None)
    if not looking.cancelled():
        looking.exception()


def _lasts(key: Key) -> bool:
    return key.expires_at is None or key.expires_at > timezone.now()


def _find(digest: str) -> Key | None:
    either = Q(hash=digest) | Q(previous_hash=digest)
    row = ClientKey.objects.filter(_usable(), either).first()
    if row is None:
        return None
    if hmac.compare_digest(row.hash, digest):
        return _key(row)
    if not hmac.compare_digest(row.previous_hash, digest) or row.previous_until is None:
        return None
    return _previous(row, row.previous_until)


def _previous(row: ClientKey, until: datetime) -> Key:
    """Return the key as the secret that was replaced still opens it: with an end of its own."""
    key = _key(row)
    return replace(key, expires_at=min(until, key.expires_at or until))


def _key(row: ClientKey) -> Key:
    return Key(
        row.pk,
        row.name,
        row.expires_at,
        labels=frozenset(row.labels),
        account=row.pinned_account,
        models=tuple(row.model_patterns),
        networks=networks(tuple(row.networks)),
        requests_per_minute=row.requests_per_minute,
        tokens_per_minute=row.tokens_per_minute,
        max_in_flight=row.max_in_flight,
        max_sessions=row.max_sessions,
        budgets=budgets_of(row),
        time_zone=row.time_zone,
        is_passthrough=row.passthrough,
    )


def budgets_of(row: ClientKey) -> tuple[Budget, ...]:
    """Return the budgets that a key has."""
    return tuple(
        Budget(period, "tokens" if unit == "tokens" else "cost", most)
        for period in PERIODS
        for unit in ("tokens", "cost")
        if (most := getattr(row, f"{unit}_per_{period}")) is not None
    )


def _usable_among(ids: set[int]) -> set[int]:
    return set(ClientKey.objects.filter(_usable(), pk__in=ids).values_list("pk", flat=True))


def _usable() -> Q:
    return Q(enabled=True, revoked_at=None)


def reset() -> None:
    """Forget what this process knows of keys (for tests)."""
    snapshot.reset()
    _forget_unknown()
    _looking.clear()
