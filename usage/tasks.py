"""The jobs of usage."""

from __future__ import annotations

from celery import shared_task

from usage import pruning, recorder, rollup


@shared_task
def drain_usage() -> int:
    """Write the request records that wait in the Redis stream."""
    return recorder.drain()


@shared_task
def roll_up() -> int:
    """Sum the quarters of an hour of which records changed."""
    return rollup.roll_up()


@shared_task
def prune() -> int:
    """Forget records and sums of long ago."""
    return pruning.prune()
