"""Write to the journal."""

from __future__ import annotations

from typing import Any

from events.models import Event


def record(kind: str, subject: str, by: str = "system", **data: Any) -> Event:
    """Append one event, in the caller's transaction.

    `kind` is "<app>.<what>", `subject` "<type>:<id>"; `data` must be plain JSON without secrets.
    """
    return Event.objects.create(kind=kind, subject=subject, by=by, data=data)
