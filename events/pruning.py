"""Forget deliveries and events of long ago, in small batches that hold no lock for long."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone

from events.models import Delivery, Event, State
from lib.deletion import delete

DELIVERIES_KEPT = timedelta(days=30)
EVENTS_KEPT = timedelta(days=400)
BATCHES = 40


def prune(now: datetime | None = None) -> int:
    """Delete deliveries older than 30 days and events older than 400; return how many went."""
    now = now or timezone.now()
    # A channel that is closed just while a rule speaks to it leaves something that waits for ever.
    stuck = Delivery.objects.filter(state=State.PENDING, created_at__lt=now - DELIVERIES_KEPT)
    stuck.update(state=State.DROPPED)
    old = Delivery.objects.filter(created_at__lt=now - DELIVERIES_KEPT)
    events = Event.objects.filter(at__lt=now - EVENTS_KEPT, alerted_at__isnull=False)
    return delete(old, BATCHES) + delete(events, BATCHES)
