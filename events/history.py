"""Read the journal: newest first, filtered, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import QuerySet

from events import evidence, naming, sentences
from events.models import Event

PAGE = 100
LONGEST_DATA = 400


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events to show; empty means any. `kind` and `subject` may end in `*`."""

    kind: str = ""
    subject: str = ""
    by: str = ""
    since: datetime | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One event as the console shows it."""

    event: Event
    text: str
    data: str


def find(wanted: Wanted) -> QuerySet[Event]:
    """Return the events that are wanted, newest first."""
    rows = Event.objects.order_by("-id")
    for column in ("kind", "subject"):
        value = getattr(wanted, column)
        if value.endswith("*"):
            rows = rows.filter(**{f"{column}__startswith": value.rstrip("*")})
        elif value:
            rows = rows.filter(**{column: value})
    if wanted.by:
        rows = rows.filter(by=wanted.by)
    if wanted.since is not None:
        rows = rows.filter(at__gte=wanted.since)
    if wanted.before is not None:
        rows = rows.filter(id__lt=wanted.before)
    return rows


def page(wanted: Wanted, size: int = PAGE) -> tuple[list[Line], int | None]:
    """Return one page of events, and the `before` of the next; None at the end."""
    found = list(find(wanted)[: size + 1])
    shown = found[:size]
    return lines(shown), shown[-1].pk if len(found) > size else None


def lines(events: Sequence[Event]) -> list[Line]:
    """Return events in words; what their subjects are called is looked up for all at once."""
    names = naming.names(event.subject for event in events)
    return [_line(event, names.get(event.subject, "")) for event in events]


def _line(event: Event, name: str) -> Line:
    data = ({"name": name} if name else {}) | event.data
    text = sentences.say(event.kind, event.subject, data, by=event.by, at=event.at)
    return Line(event, text, evidence.say(event.data)[:LONGEST_DATA])
