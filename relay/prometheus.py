"""What the data plane tells Prometheus: what it refused, and what it is at just now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.metrics_core import Metric

from lib import counters
from lib.exposition import Counter, Table, gauge

METRICS: Table = (
    Counter("refusals", "Requests refused by the relay itself.", ("code",)),
    Counter("waits", "Requests that waited for a place, by how the wait ended.", ("ended",)),
)


def gauges(processes: Sequence[Mapping[str, str]]) -> Iterator[Metric]:
    """Return what the living processes do, taken together."""
    for name, help in (
        ("requests_in_flight", "Requests that have begun and not ended."),
        ("requests_waiting", "Requests that wait for a place at an account."),
        ("streams_open", "Answers that are under way to a client."),
    ):
        yield gauge(name, help, {(): sum(_values(processes, name))})
    lags = _values(processes, counters.LAG)
    if lags:
        help = "The longest wait for the event loop of any process, in its last 10 seconds."
        yield gauge(counters.LAG, help, {(): max(lags)})


def _values(processes: Sequence[Mapping[str, str]], name: str) -> list[float]:
    return [float(told[name]) for told in processes if name in told]
