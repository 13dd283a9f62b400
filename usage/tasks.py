"""The jobs of usage."""

from __future__ import annotations

from datetime import datetime

from celery import shared_task

from usage import pricelist, pruning, recorder, rollup


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


@shared_task
def reprice(since: str, until: str, by: str, only_unknown: bool) -> int:
    """Put the prices in force on the records of a range."""
    begin, end = datetime.fromisoformat(since), datetime.fromisoformat(until)
    return pricelist.reprice(begin, end, by=by, only_unknown=only_unknown)
