"""The jobs that show that jobs are run."""

from __future__ import annotations

import contextlib

import redis
from celery import shared_task, signals

from lib import heartbeat as heartbeats

BEAT, WORKER = "beat", "worker"


@shared_task
def heartbeat() -> None:
    """Leave the worker's sign of life: that it runs jobs."""
    heartbeats.beat(WORKER)


def _beat_is_alive(**_: object) -> None:
    # What publishes this job is its schedule, so its being published is beat's sign of life.
    with contextlib.suppress(redis.RedisError, OSError):
        heartbeats.beat(BEAT)


signals.before_task_publish.connect(_beat_is_alive, sender=heartbeat.name)
