"""What keys have used today, this week and this month, also what is on its way to the database."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sessions_limit.keys import PERIODS, Period
from sessions_limit.spans import Span, span
from usage import periods, prices
from usage.amounts import Amount, Prices
from usage.spending import Spending, Starts, add
from usage.waiting import Waiting, written

Spans = dict[Period, Span]


@dataclass(frozen=True, slots=True)
class Known:
    """What one key has used since its day, its week and its month began."""

    zone: str
    spans: Mapping[Period, Span]
    used: Mapping[Period, Amount]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was known at a moment (`read_at`, monotonic): by key, with these of our requests."""

    read_at: float
    keys: Mapping[int, Known]
    counted: frozenset[str]
    prices: Prices


class Reader:
    """Reads figures again and again, and keeps what cannot have changed in between."""

    def __init__(self) -> None:
        self._waiting, self._spending = Waiting(), Spending()
        self._prices = Prices((), {})

    def read(self, zones: Mapping[int, str], now: datetime, ours: Collection[str] = ()) -> Figures:
        """Return the figures of keys, given with their zones (blocking).

        `ours` are requests of this process: which of them are in the figures is told.
        """
        read_at = time.monotonic()
        in_force = prices.in_force()
        # The same object as long as they are the same: what they gave need not be reckoned again.
        self._prices = self._prices if in_force == self._prices else in_force
        # The stream comes first, then the database: what moves on meanwhile is seen twice for a
        # moment, but never missed.
        self._waiting.read(zones.keys(), self._prices)
        counted = self._waiting.rows.keys() & ours
        counted |= written(set(ours) - counted)
        spans = {zone: _spans(now, zone) for zone in set(zones.values())}
        starts = {key: _starts(spans[zone]) for key, zone in zones.items()}
        used = self._spending.since(starts, now)
        for (key, period), amount in self._waiting.sums.items():
            add(used, starts, key, period, amount)
        keys = {
            key: Known(zone, spans[zone], dict(zip(PERIODS, used[key], strict=True)))
            for key, zone in zones.items()
        }
        return Figures(read_at, keys, frozenset(counted), self._prices)


def _spans(now: datetime, zone: str) -> Spans:
    return {period: span(period, now, zone) for period in PERIODS}


def _starts(spans: Spans) -> Starts:
    return tuple(periods.of(spans[period].start) for period in PERIODS)
