"""The jobs of events: each calls one verb."""

from __future__ import annotations

from celery import shared_task

from events import alerts, pruning


@shared_task
def deliver_alerts() -> None:
    """Tell of what happened, and try again what did not arrive."""
    alerts.spread()
    alerts.deliver()


@shared_task
def prune() -> None:
    """Forget deliveries and events of long ago."""
    pruning.prune()
