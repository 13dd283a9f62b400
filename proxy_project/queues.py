"""What waits in Redis: rows on their way to the database, and jobs for a worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

from accounts import facts
from lib.exposition import gauge
from lib.redis import for_requests
from usage import recorder

STREAMS = (recorder.STREAM, facts.STREAM)
# Celery's own names for its one queue, and for what a worker has taken.
QUEUE, TAKEN = "celery", "unacked"
LABELS = ("stream",)


@dataclass(slots=True)
class Queues:
    """Lengths and ages at one moment; those of streams by their name."""

    length: dict[tuple[str, ...], float] = field(default_factory=dict)
    oldest: dict[tuple[str, ...], float] = field(default_factory=dict)
    dead: dict[tuple[str, ...], float] = field(default_factory=dict)
    jobs: float = 0
    taken: float = 0


async def read() -> Queues:
    """Ask Redis, once; raise RedisError or OSError."""
    client = for_requests()
    pipeline = client.pipeline(transaction=False)
    pipeline.time()
    pipeline.llen(QUEUE)
    pipeline.hlen(TAKEN)
    for stream in STREAMS:
        pipeline.xlen(stream)
        pipeline.xlen(f"{stream}:dead")
        pipeline.xrange(stream, count=1)
    (seconds, _), jobs, taken, *told = await pipeline.execute()
    queues = Queues(jobs=float(jobs), taken=float(taken))
    for number, stream in enumerate(STREAMS):
        length, dead, first = told[3 * number : 3 * number + 3]
        queues.length[stream,], queues.dead[stream,] = length, dead
        # An entry's id begins with its time. What is written is deleted, so the first one waits.
        at = int(first[0][0].partition("-")[0]) / 1000 if first else float(seconds)
        queues.oldest[stream,] = max(0.0, float(seconds) - at)
    return queues


def gauges(queues: Queues) -> Iterator[Metric]:
    """Return them as metrics."""
    help = "Rows in a stream that are not in the database yet."
    yield gauge("stream_rows", help, queues.length, LABELS)
    yield gauge("stream_oldest_seconds", "The age of the oldest of them.", queues.oldest, LABELS)
    help = "Rows that the database would not take, kept aside."
    yield gauge("stream_dead_rows", help, queues.dead, LABELS)
    yield gauge("jobs_queued", "Jobs that no worker has taken yet.", {(): queues.jobs})
    yield gauge("jobs_taken", "Jobs that a worker has taken and not ended.", {(): queues.taken})
