"""Sessions as pages, the API and the command line show them: one query, and one look at Redis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from django.db.models import QuerySet

from sessions_limit import presence
from sessions_limit.models import ClientSession
from sessions_limit.presence import Seen

State = Literal["living", "ended", "all"]
LIVING: State = "living"
ENDED: State = "ended"
ALL: State = "all"
NOTHING = Seen(0, 0)


@dataclass(frozen=True, slots=True)
class Shown:
    """A session, and what it has under way in all web processes: requests, and live streams."""

    row: ClientSession
    in_flight: int
    streams: int

    @property
    def lives(self) -> bool:
        """Whether it holds a slot of its client."""
        return self.row.ended_at is None


def found(
    *, key: int | None = None, client: str = "", address: str = "", state: State = LIVING
) -> QuerySet[ClientSession]:
    """Return the sessions that are wanted, the last seen first, with their keys and accounts."""
    rows = ClientSession.objects.select_related("key", "account").defer("counts")
    if state != ALL:
        rows = rows.filter(ended_at__isnull=state == LIVING)
    if key is not None:
        rows = rows.filter(key=key)
    if client:
        rows = rows.filter(client=client)
    if address:
        rows = rows.filter(address=address)
    return rows.order_by("-last_seen_at", "-pk")


def shown(rows: Iterable[ClientSession]) -> list[Shown]:
    """Return these sessions with what they have under way; nothing while Redis is away."""
    return beside(rows, presence.read())


def beside(rows: Iterable[ClientSession], seen: Mapping[str, Seen]) -> list[Shown]:
    """Return these sessions with what was seen of each name."""
    # An ended one may have the name of one that lives again.
    under = ((row, NOTHING if row.ended_at else seen.get(row.name, NOTHING)) for row in rows)
    return [Shown(row, now.in_flight, now.streams) for row, now in under]


def facts(one: Shown) -> dict[str, Any]:
    """Return a session as plain facts: `id` names it in every command and address."""
    row = one.row
    return {
        "id": row.uid,
        "key": row.key_id,
        "key_name": row.key.name,
        "client": row.client,
        "session": row.session,
        "address": row.address,
        "user_agent": row.user_agent,
        "account": row.account_id,
        "account_name": row.account.name if row.account else None,
        "started_at": row.started_at,
        "last_seen_at": row.last_seen_at,
        "requests": row.requests,
        "in_flight": one.in_flight,
        "streams": one.streams,
        "ended_at": row.ended_at,
        "ended": row.ended,
    }
