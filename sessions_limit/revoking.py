"""Revoke sessions: the rows first, as they are the truth, then Redis, then a word to all processes.

A revoked session is refused for SESSION_BAN_SECONDS, and what runs of it ends; revoked again, it is
refused for longer. Other sessions of the same client are welcome.

Whoever revokes many at once cannot know them all: one that began a moment ago is in Redis but not
yet in the record, one that began while Redis was away in neither. A wide revocation leaves a row of
its own for those (`targets.covering`): what it covers and began before `made_at` is revoked too, as
soon as it is known.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import redis
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from events import journal
from lib import bus, peer
from sessions_limit import bans, limiter, targets
from sessions_limit.identity import block_of
from sessions_limit.models import ClientKey, ClientSession, Revocation

T = TypeVar("T")
REVOKED = "revoked"
# How many names go in one question to the database or to Redis.
BATCH = 500
log = logging.getLogger(__name__)


class NoAddress(ValueError):
    """What was given is no IP address."""


def revoke_session(row: ClientSession, by: str, now: datetime | None = None) -> int:
    """Revoke one session, also one that has ended: its client could go on with it. Return 1."""
    now = now or timezone.now()
    told = {"name": row.session, "client": row.client, "key": row.key_id}
    with transaction.atomic():
        _end(_locked(_living().filter(client=row.client, session=row.session)), now)
        _ban([row.name], Revocation(target=targets.SESSION, by=by, made_at=now, until=_until(now)))
        journal.record("session.revoke", f"session:{row.uid}", by=by, **told)
    return 1


def revoke_sessions_of_key(key: ClientKey, by: str, now: datetime | None = None) -> int:
    """Revoke what a key has open; return how many sessions that were. The key stays good."""
    target, client = targets.of_key(key.pk), f"key:{key.pk}"
    rows = _living().filter(key=key)
    return _revoke_all(target, rows, lambda whose: whose == client, by, now, name=key.name)


def revoke_sessions_of_address(address: str, by: str, now: datetime | None = None) -> int:
    """Revoke what an address has open (of IPv6 its /64); return how many sessions that were.

    Raise NoAddress.
    """
    address = read_address(address)
    target, client = targets.of_address(address), f"ip:{block_of(address)}"
    rows = within(_living(), address)
    return _revoke_all(target, rows, lambda whose: whose.partition("|")[0] == client, by, now)


def revoke_all(by: str, now: datetime | None = None) -> int:
    """Revoke every session; return how many there were."""
    return _revoke_all(targets.ALL, _living(), lambda whose: True, by, now)


def read_address(text: str) -> str:
    """Return an address as the record has it; one of its addresses stands for a /64 of IPv6.

    Raise NoAddress.
    """
    address = peer.address_of(text.strip().removesuffix("/64"))
    if not address:
        raise NoAddress(f"{text[:50]!r} is not an IP address")
    return address


def within(rows: QuerySet[ClientSession], address: str) -> QuerySet[ClientSession]:
    """Return those of these sessions that an address stands for."""
    if ":" not in address:
        return rows.filter(address=address)
    block, pairs = (
        block_of(address),
        rows.filter(address__contains=":").values_list("pk", "address"),
    )
    return rows.filter(pk__in=[pk for pk, at in pairs if block_of(at) == block])


def catch_up(now: datetime | None = None) -> int:
    """End what was revoked before the record knew of it; return how many sessions.

    They are those of revoked keys, those that were revoked themselves, and those that a wide
    revocation covers. Of all that live, not only of those just written: who writes and who revokes
    at the same moment do not see each other's rows.
    """
    now = now or timezone.now()
    ended = _end_with_their_keys(now)
    made = {row.name: row for row in Revocation.objects.filter(until__gt=now)}
    late: defaultdict[str, list[ClientSession]] = defaultdict(list)
    living = _living().only("client", "session", "key", "address", "started_at")
    for row in living if made else ():
        if ban := _found(row, made):
            late[ban.name].append(row)
    for name, rows in sorted(late.items()):
        with transaction.atomic():
            ended += _end(_locked(_living().filter(pk__in=[row.pk for row in rows])), now)
            if name == made[name].target:
                _ban([row.name for row in rows], made[name])
    return ended


def _revoke_all(
    target: str,
    rows: QuerySet[ClientSession],
    covers: Callable[[str], bool],
    by: str,
    now: datetime | None,
    **told: Any,
) -> int:
    # Taken before anybody is asked: what begins from now on is welcome.
    now = now or timezone.now()
    names = {name for name in _in_redis() if covers(name.rpartition("/")[0])}
    with transaction.atomic():
        known = _locked(rows)
        _end(known, now)
        names |= {row.name for row in known}
        _ban([target, *names], Revocation(target=target, by=by, made_at=now, until=_until(now)))
        kind = "session.revoke_all" if target == targets.ALL else "session.revoke_of"
        journal.record(kind, target, by=by, count=len(names), **told)
    return len(names)


def _living() -> QuerySet[ClientSession]:
    return ClientSession.objects.filter(ended_at=None)


def _locked(rows: QuerySet[ClientSession]) -> list[ClientSession]:
    """Return rows that nobody else changes from here on; all writers lock them in this order."""
    return list(rows.select_for_update().order_by("uid"))


def _end(rows: Sequence[ClientSession], at: datetime) -> int:
    return sum(
        _living().filter(pk__in=pks).update(ended_at=at, ended=REVOKED)
        for pks in _batches([row.pk for row in rows])
    )


def _ban(names: Collection[str], like: Revocation) -> None:
    """Refuse these until then, or longer if they are already; in the caller's transaction."""
    for some in _batches(sorted(set(names))):
        Revocation.objects.bulk_create(
            [
                Revocation(
                    name=name,
                    until=like.until,
                    made_at=like.made_at,
                    by=like.by,
                    target=like.target,
                )
                for name in some
            ],
            update_conflicts=True,
            unique_fields=["name"],
            update_fields=["made_at", "by", "target"],
        )
        shorter = Revocation.objects.filter(name__in=some, until__lt=like.until)
        shorter.update(until=like.until)
    sessions = [name for name in names if name != like.target]
    transaction.on_commit(partial(_tell_redis, sessions, like.until.timestamp()))
    bus.changed(bans.BANS)


def _tell_redis(names: Sequence[str], until: float) -> None:
    try:
        for some in _batches(names):
            limiter.ban(some, until)
    except (redis.RedisError, OSError) as error:
        # The rows tell every process; Redis only frees the slots earlier.
        log.warning("revoke sessions in Redis: %s", type(error).__name__)


def _in_redis() -> list[str]:
    try:
        return limiter.living()
    except (redis.RedisError, OSError) as error:
        log.warning("look for sessions in Redis: %s", type(error).__name__)
        return []


def _end_with_their_keys(now: datetime) -> int:
    rows = _living().filter(key__revoked_at__isnull=False).order_by("key").distinct()
    ended = 0
    for key, revoked_at in list(rows.values_list("key", "key__revoked_at")):
        with transaction.atomic():
            ended += _end(_locked(_living().filter(key=key)), revoked_at or now)
    return ended


def _found(row: ClientSession, made: Mapping[str, Revocation]) -> Revocation | None:
    """Return the revocation that ends a session: its own, or a wide one that came after it."""
    if own := made.get(row.name):
        # However the clocks differ: as long as it is refused no new life of it begins.
        return own
    for target in targets.covering(row.key_id, row.address):
        if (wide := made.get(target)) and row.started_at <= wide.made_at:
            return wide
    return None


def _until(now: datetime) -> datetime:
    return now + timedelta(seconds=settings.CONFIG.session_ban_seconds)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
