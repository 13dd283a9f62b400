"""Write to the journal."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from events.models import Event
from lib import counters


def record(kind: str, subject: str, by: str = "system", **data: Any) -> Event:
    """Append one event, in the caller's transaction.

    `kind` is "<app>.<what>", `subject` "<type>:<id>"; `data` must be plain JSON without secrets.
    """
    event = Event.objects.create(kind=kind, subject=subject, by=by, data=data)
    transaction.on_commit(lambda: counters.add("events", kind))
    return event
