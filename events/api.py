"""The journal in the admin API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Field, Query, Router, Schema
from pydantic import AwareDatetime

from events.models import Event
from lib.problems import documented

LARGEST_ID = 2**63 - 1
Before = Annotated[int, Query(ge=1, le=LARGEST_ID, description="only events with a lower id")]
Limit = Annotated[int, Query(ge=1, le=500)]
# Times that every database can hold, whatever zone they are given in.
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(2100, 1, 1, tzinfo=UTC)),
]

router = Router(tags=["events"])


class EventOut(Schema):
    """One thing that happened."""

    id: int
    at: datetime
    kind: str = Field(description="<app>.<what>, such as account.limit")
    subject: str = Field(description="<type>:<id>, such as account:1")
    by: str
    data: dict[str, Any]


class EventPage(Schema):
    """Events, newest first; `next` is the `before` of the page that follows, null on the last."""

    items: list[EventOut]
    next: int | None


class EventFilter(Schema):
    """Which events are wanted."""

    kind: str | None = Field(
        None, pattern=r"^[!-~]{1,64}$", description="a kind, or its beginning with a dot: account."
    )
    subject: str | None = Field(None, pattern=r"^[!-~]{1,128}$")
    since: Moment | None = None
    until: Moment | None = None


@router.get("", response={200: EventPage, **documented()})
def list_events(
    request: HttpRequest,
    wanted: Query[EventFilter],
    before: Before = LARGEST_ID,
    limit: Limit = 100,
) -> EventPage:
    """List what happened, newest first."""
    rows = Event.objects.all()
    if wanted.kind and wanted.kind.endswith("."):
        rows = rows.filter(kind__startswith=wanted.kind)
    elif wanted.kind:
        rows = rows.filter(kind=wanted.kind)
    if wanted.subject:
        rows = rows.filter(subject=wanted.subject)
    if wanted.since:
        rows = rows.filter(at__gte=wanted.since)
    if wanted.until:
        rows = rows.filter(at__lt=wanted.until)
    return page(rows, before, limit)


def page(rows: QuerySet[Event], before: int, limit: int) -> EventPage:
    """Return one page of these events; one query."""
    found = list(rows.filter(id__lt=before).order_by("-id")[: limit + 1])
    items = [
        EventOut(id=row.pk, at=row.at, kind=row.kind, subject=row.subject, by=row.by, data=row.data)
        for row in found[:limit]
    ]
    return EventPage(items=items, next=items[-1].id if len(found) > limit else None)
