"""Counted values as Prometheus' metric families: tables say what there is; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

PREFIX = "carousel_"
# Seconds: from what a cache answers to what thinks for half an hour.
BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
LAST = "+Inf"
Values = Mapping[tuple[str, ...], float]
Labels = TypeVar("Labels", bound=tuple[str, ...])


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter: its name without prefix and `_total`, its help text, its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def family(self, values: Values) -> Metric:
        """Return it with what was counted; without labels it is there from the start."""
        family = CounterMetricFamily(PREFIX + self.name, self.help, labels=self.labels)
        if not self.labels:
            family.add_metric([], values.get((self.name,), 0.0))
            return family
        for labels, value in _of(self.name, len(self.labels), values):
            family.add_metric(labels, value)
        return family


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram of seconds, counted as the two counters that `observed` names."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def observed(self, seconds: float, *labels: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return which bucket's counter to add 1 to, and which to add the seconds to."""
        bound = next((str(bound) for bound in BOUNDS if seconds <= bound), LAST)
        return (f"{self.name}_bucket", *labels, bound), (f"{self.name}_sum", *labels)

    def family(self, values: Values) -> Metric:
        """Return it with what was counted."""
        family = HistogramMetricFamily(PREFIX + self.name, self.help, labels=self.labels)
        counts: dict[tuple[str, ...], dict[float, float]] = defaultdict(dict)
        for (*labels, bound), count in _of(f"{self.name}_bucket", len(self.labels) + 1, values):
            counts[tuple(labels)][float(bound)] = count
        for found, told in counts.items():
            # By the value of each bound: what was counted with others stays right.
            buckets = [
                (bound, sum(n for at, n in told.items() if at <= float(bound)))
                for bound in (*map(str, BOUNDS), LAST)
            ]
            total = values.get((f"{self.name}_sum", *found), 0.0)
            family.add_metric(list(found), buckets, sum_value=total)
        return family


Table = tuple[Counter | Histogram, ...]


def gauge(
    name: str, help: str, values: Mapping[Labels, float], labels: Iterable[str] = ()
) -> Metric:
    """Return a gauge with its values by their labels."""
    family = GaugeMetricFamily(PREFIX + name, help, labels=tuple(labels))
    for given, value in sorted(values.items()):
        family.add_metric(given, value)
    return family


def render(families: Iterable[Metric]) -> bytes:
    """Return the text of the families in Prometheus' format (0.0.4)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(list(families)))
    return generate_latest(registry)


class _Given(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _of(name: str, labels: int, values: Values) -> list[tuple[list[str], float]]:
    """Return what is counted under a name; an older release may have had other labels."""
    found = [(key, value) for key, value in values.items() if key[0] == name]
    return [(list(key[1:]), value) for key, value in sorted(found) if len(key) == labels + 1]
