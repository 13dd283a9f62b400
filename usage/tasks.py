"""The jobs of usage."""

from __future__ import annotations

from celery import shared_task

from usage import recorder


@shared_task
def drain_usage() -> int:
    """Write the request records that wait in the Redis stream."""
    return recorder.drain()
