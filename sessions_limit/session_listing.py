"""The console's pages of sessions, the living first, and what a revocation would end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import redis
from django.db.models import Q, QuerySet

from lib.redis import for_jobs
from sessions_limit import presence, revoking, showing
from sessions_limit.models import ClientKey, ClientSession
from sessions_limit.presence import Seen
from sessions_limit.showing import ALL, ENDED, LIVING, NOTHING, Shown, State

PAGE = 50
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sessions to show; what is empty or None is any."""

    state: State = LIVING
    key: int | None = None
    account: int | None = None
    address: str = ""
    q: str = ""


@dataclass(frozen=True, slots=True)
class Under:
    """What some sessions have under way: how many there are, their requests and live streams.

    Only the first is known while Redis is away.
    """

    sessions: int
    in_flight: int
    streams: int
    is_known: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Some sessions, and what all living ones of their kind have under way."""

    rows: list[Shown]
    under: Under
    has_more: bool


def page(wanted: Wanted, number: int = 1) -> Page:
    """Return one page of the sessions that are wanted; pages count from 1."""
    seen = look()
    living = names_of(_found(wanted, LIVING))
    rows = _slice(wanted, len(living), (number - 1) * PAGE, PAGE + 1)
    return Page(showing.beside(rows[:PAGE], seen or {}), under_way(living, seen), len(rows) > PAGE)


def look() -> Mapping[str, Seen] | None:
    """Return what each session has under way, by its name; None while Redis is away."""
    try:
        with contextlib.closing(for_jobs(PATIENCE)) as client:
            client.ping()
    except (redis.RedisError, OSError):
        return None
    return presence.read()


def under_way(names: Iterable[str], seen: Mapping[str, Seen] | None) -> Under:
    """Return what the sessions of these names have under way, of what `look` has told."""
    found = [(seen or {}).get(name, NOTHING) for name in names]
    in_flight, streams = sum(s.in_flight for s in found), sum(s.streams for s in found)
    return Under(len(found), in_flight, streams, is_known=seen is not None)


def names_of(rows: QuerySet[ClientSession]) -> list[str]:
    """Return the names by which the limiter knows these sessions."""
    pairs = rows.order_by().values_list("client", "session")
    return [f"{client}/{session}" for client, session in pairs]


def ends_with(*, key: ClientKey | None = None, address: str = "") -> Under:
    """Return what ends when the sessions of a key, of an address or, without either, all are."""
    rows = showing.found(key=key.pk if key else None)
    if address:
        rows = revoking.within(rows, address)
    return under_way(names_of(rows), look())


def _found(wanted: Wanted, state: State) -> QuerySet[ClientSession]:
    rows = showing.found(key=wanted.key, address=wanted.address, state=state)
    if wanted.account is not None:
        rows = rows.filter(account=wanted.account)
    if wanted.q:
        text = Q(session__icontains=wanted.q) | Q(user_agent__icontains=wanted.q)
        rows = rows.filter(text | Q(uid=wanted.q))
    return rows


def _slice(wanted: Wanted, living: int, start: int, size: int) -> list[ClientSession]:
    """Return rows from a place on; of all, the living stand before those that have ended."""
    if wanted.state != ALL:
        return list(_found(wanted, wanted.state)[start : start + size])
    first = list(_found(wanted, LIVING)[start : start + size]) if start < living else []
    after = max(0, start - living)
    return first + list(_found(wanted, ENDED)[after : after + size - len(first)])
