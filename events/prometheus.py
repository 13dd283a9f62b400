"""What is told to Prometheus of events and of the alerts about them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Count, Min
from prometheus_client.metrics_core import Metric

from events.models import Delivery, State
from lib.exposition import Counter, Table, gauge

METRICS: Table = (Counter("events", "Events in the journal, by their kind.", ("kind",)),)


def gauges(now: datetime) -> Iterator[Metric]:
    """Read what waits to be delivered; one query."""
    waiting = Delivery.objects.filter(state=State.PENDING).order_by()
    found = waiting.aggregate(count=Count("pk"), oldest=Min("created_at"))
    help = "Alerts that have not arrived yet and are still tried."
    yield gauge("deliveries_pending", help, {(): found["count"]})
    age = (now - found["oldest"]).total_seconds() if found["oldest"] else 0.0
    yield gauge("deliveries_oldest_seconds", "The age of the oldest of them.", {(): age})
