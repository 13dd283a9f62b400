"""What holds for a while, announced once when it begins and once when it ends."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from events import journal
from events.models import Condition


def begin(
    kind: str, subject: str, *, now: datetime, detail: str = "", event: str = "", **data: Any
) -> bool:
    """Note that a condition holds; journal it (as `event`, or `kind`) and return True if it is new.

    `detail` tells conditions of one kind and subject apart ("5h 2026-11-20T15:00"). In a
    transaction of its own, or nested in the caller's.
    """
    try:
        with transaction.atomic():
            Condition.objects.create(kind=kind, subject=subject, detail=detail[:128], since=now)
            journal.record(event or kind, subject, **data)
    except IntegrityError:
        return False
    return True


def end(
    kind: str, subject: str, *, detail: str | None = None, event: str = "", **data: Any
) -> bool:
    """Note that a condition holds no more; with `event`, journal that. False: it did not hold.

    Without `detail`, all of that kind and subject end.
    """
    rows = Condition.objects.filter(kind=kind, subject=subject)
    if detail is not None:
        rows = rows.filter(detail=detail[:128])
    with transaction.atomic():
        ended, _ = rows.delete()
        if ended and event:
            journal.record(event, subject, **data)
    return bool(ended)


def holds(kind: str, subject: str) -> bool:
    """Tell whether a condition holds now."""
    return Condition.objects.filter(kind=kind, subject=subject).exists()
