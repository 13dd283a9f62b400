"""What is told to Prometheus of sessions: how many live, and whether they are counted together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.metrics_core import Metric

from lib.exposition import Counter, Table, gauge
from lib.redis import for_requests
from sessions_limit import alone, limiter

METRICS: Table = (
    Counter("sessions_admitted_alone", "Sessions that a process admitted while Redis was away."),
    Counter(alone.SECONDS, "Seconds for which processes decided on sessions alone, added up."),
)


async def read() -> int:
    """Return how many sessions live by the clock of Redis; raise RedisError or OSError."""
    client = for_requests()
    seconds, microseconds = await client.time()
    now = int(seconds) + int(microseconds) / 1_000_000
    return int(await client.zcount(limiter.ALL, f"({now}", "+inf"))


def gauges(processes: Sequence[Mapping[str, str]], living: int) -> Iterator[Metric]:
    """Return how many sessions live, and how many processes decide alone."""
    yield gauge("sessions_living", "Sessions that are open now.", {(): living})
    degraded = sum(float(told.get(alone.LEVEL, 0)) for told in processes)
    help = "Web processes that decide on sessions alone, as Redis does not answer them."
    yield gauge(alone.LEVEL, help, {(): degraded})
