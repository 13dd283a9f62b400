"""Forget deliveries and events of long ago, in small batches that hold no lock for long."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from events.models import Delivery, Event, State

DELIVERIES_KEPT = timedelta(days=30)
EVENTS_KEPT = timedelta(days=400)
BATCH, BATCHES = 500, 40


def prune(now: datetime | None = None) -> int:
    """Delete deliveries older than 30 days and events older than 400; return how many went."""
    now = now or timezone.now()
    # A channel that is closed just while a rule speaks to it leaves something that waits for ever.
    stuck = Delivery.objects.filter(state=State.PENDING, created_at__lt=now - DELIVERIES_KEPT)
    stuck.update(state=State.DROPPED)
    old = Delivery.objects.filter(created_at__lt=now - DELIVERIES_KEPT)
    events = Event.objects.filter(at__lt=now - EVENTS_KEPT, alerted_at__isnull=False)
    return _delete(old) + _delete(events)


def _delete(rows: QuerySet[Any]) -> int:
    gone = 0
    for _ in range(BATCHES):
        batch = list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH])
        rows.model._default_manager.filter(pk__in=batch).delete()
        gone += len(batch)
        if len(batch) < BATCH:
            break
    return gone
