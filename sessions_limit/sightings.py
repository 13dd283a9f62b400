"""Sightings of sessions on their way from the web processes to the record of sessions."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import redis
from django.apps import apps
from django.db import transaction
from django.db.models import Model
from django.utils import timezone

from lib import counters, names, peer, streams
from lib.redis import for_jobs
from lib.streams import Appender, Row
from sessions_limit.models import LONGEST_USER_AGENT, ClientKey, ClientSession

STREAM = "sightings"
LONGEST_CLIENT, LONGEST_SESSION = 96, 128
IDLE = "idle"
# What a sighting may change; the rest is what the session is.
MOVING = (
    "key",
    "address",
    "user_agent",
    "account",
    "started_at",
    "last_seen_at",
    "requests",
    "counts",
    "ended_at",
    "ended",
)
FOREIGN = ("key", "account")
BATCH = 500
# Since when sightings are written without a break; whoever pauses for longer begins anew.
WRITTEN_SINCE, BREAK_SECONDS = f"{STREAM}:written-since", 10
# So long after a break all processes have told again of what lives.
SETTLED_SECONDS = 15.0

appender = Appender(STREAM)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one process told of a session: `requests` are all that it has counted so far."""

    uid: str
    key: int
    client: str
    session: str
    address: str
    user_agent: str
    account: int | None
    process: str
    since: datetime
    seen: datetime
    requests: int


def append(row: Row) -> None:
    """Queue one sighting; field names are those of Sighting, times are epoch seconds."""
    appender.append(row | {"user_agent": _plain(row["user_agent"], LONGEST_USER_AGENT)})


def drain() -> int:
    """Write the sightings that wait in the stream, and return how many there were."""
    written = streams.drain(STREAM, write, lost=_note_lost)
    with contextlib.closing(for_jobs()) as client:
        client.set(WRITTEN_SINCE, _clock(client), nx=True, ex=BREAK_SECONDS)
        client.expire(WRITTEN_SINCE, BREAK_SECONDS)
    return written


def are_written() -> bool:
    """Tell whether the record has what was told until a moment ago; blocking.

    It has not after a time without worker or Redis, nor while a backlog is written.
    """
    try:
        with contextlib.closing(for_jobs()) as client:
            since, now = client.get(WRITTEN_SINCE), _clock(client)
            waiting: Any = client.xrange(STREAM, count=1)
    except (redis.RedisError, OSError):
        return False
    oldest = int(waiting[0][0].partition("-")[0]) / 1000 if waiting else now
    return since is not None and oldest > now - SETTLED_SECONDS > float(str(since))


def _clock(client: redis.Redis) -> float:
    seconds, microseconds = client.time()
    return int(seconds) + int(microseconds) / 1_000_000


def write(rows: Sequence[Row], now: datetime | None = None) -> None:
    """Bring the record up to a batch of sightings; an older or repeated one changes nothing."""
    now = now or timezone.now()
    sightings = _known([_read(row, now) for row in rows])
    first = {told.uid: told for told in sorted(sightings, key=_seen, reverse=True)}
    with transaction.atomic():
        # All of them are made or locked, in one order: who comes second waits here, and then adds
        # to what the first has counted.
        _put([_begun(first[uid]) for uid in sorted(first)], ("uid",))
        lives = _read_anew(sorted(first))
        for told in sightings:
            _add(lives[told.uid], told)
        _put(list(lives.values()), MOVING)


def _note_lost(count: int) -> None:
    """Count them only: the next sighting of each session tells everything anew."""
    counters.add("lost_rows", STREAM, by=count)


def _read(row: Row, now: datetime) -> Sighting:
    # A clock that went ahead must not keep a session alive, or newer sightings out.
    seen = min(_time(row["seen"]), now)
    return Sighting(
        uid=row["uid"],
        key=int(row["key"]),
        client=_plain(row["client"], LONGEST_CLIENT),
        session=_plain(row["session"], LONGEST_SESSION),
        address=peer.address_of(row["address"]),
        user_agent=_plain(row["user_agent"], LONGEST_USER_AGENT),
        account=row["account"],
        process=str(row["process"]),
        since=min(_time(row["since"]), seen),
        seen=seen,
        requests=max(0, int(row["requests"])),
    )


def _known(sightings: Sequence[Sighting]) -> list[Sighting]:
    """Return those whose key has a row, without the accounts that have none."""
    keys = _ids(ClientKey, {told.key for told in sightings})
    accounts = _ids(apps.get_model("accounts.Account"), {told.account for told in sightings})
    return [
        told if told.account in accounts else replace(told, account=None)
        for told in sightings
        if told.key in keys
    ]


def _ids(model: type[Model], wanted: set[Any]) -> set[Any]:
    rows = model._default_manager.filter(pk__in=wanted - {None})
    return set(rows.values_list("pk", flat=True))


def _seen(told: Sighting) -> datetime:
    return told.seen


def _begun(told: Sighting) -> ClientSession:
    """Return the session as its first sighting has it."""
    return ClientSession(
        uid=told.uid,
        key_id=told.key,
        client=told.client,
        session=told.session,
        address=told.address,
        user_agent=told.user_agent,
        account_id=told.account,
        started_at=told.since,
        last_seen_at=told.seen,
    )


def _read_anew(uids: Sequence[str]) -> dict[str, ClientSession]:
    """Return the rows as they are now, as rows that can be put again."""
    columns = ("uid", "client", "session", *(f"{n}_id" if n in FOREIGN else n for n in MOVING))
    found = ClientSession.objects.filter(uid__in=uids).order_by("uid").values(*columns)
    return {values["uid"]: ClientSession(**values) for values in found}


def _add(row: ClientSession, told: Sighting) -> None:
    row.counts[told.process] = max(told.requests, row.counts.get(told.process, 0))
    row.requests = sum(row.counts.values())
    row.started_at = min(row.started_at, told.since)
    is_newer = told.seen > row.last_seen_at
    if told.account is not None and (is_newer or row.account_id is None):
        row.account_id = told.account
    if is_newer:
        row.key_id, row.address, row.user_agent = told.key, told.address, told.user_agent
        row.last_seen_at = told.seen
        if row.ended == IDLE:
            row.ended_at, row.ended = None, ""


def _put(rows: Sequence[ClientSession], columns: Sequence[str]) -> None:
    """Insert rows; of those that exist already change these columns."""
    ClientSession.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["uid"],
        update_fields=columns,
        batch_size=BATCH,
    )


def _plain(text: str, most: int) -> str:
    """Return text for its column: callers choose it, so nothing hidden and nothing too long."""
    return names.plain(text)[:most].rstrip()


def _time(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
