"""What keys have used since the beginnings of their days, weeks and months, to the last record.

Periods that are marked are read from their records, all others from their sums. What is older than
an hour is added up once, and kept until a mark, a sum made anew or sums deleted show a change.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Any

from django.db.models import F, Max, Min, Q, Sum, Value
from django.db.models.functions import Coalesce

from usage import periods, rollup
from usage.amounts import NOTHING, TOKENS, Amount
from usage.models import DirtyPeriod, RequestRecord, UsagePeriod

# The first periods of the spans that a key is asked about.
Starts = tuple[int, ...]
Used = dict[int, list[Amount]]
GROUPING = "key"
RECENT = periods.LENGTHS["hour"]
KEYS_AT_ONCE, RANGES_AT_ONCE = 500, 50
ALL_TOKENS: Any = sum((F(name) for name in TOKENS[1:]), F(TOKENS[0]))


@dataclass(frozen=True, slots=True)
class Basis:
    """What closed sums were added up of: whose, from when to when, and without which."""

    starts: Mapping[int, Starts]
    oldest: int
    cut: int
    marked: frozenset[int]


class Spending:
    """Adds up for one reader, one question at a time."""

    def __init__(self) -> None:
        self._basis: Basis | None = None
        self._closed: Used = {}
        self._newest = 0

    def since(self, starts: Mapping[int, Starts], now: datetime) -> Used:
        """Return what each key has used since each of its starts, as far as there are records."""
        if not starts:
            return {}
        first, cut = min(map(min, starts.values())), periods.of(now) - RECENT
        # First the newest sum, then the marks, then the sums: what is summed for a mark that we do
        # not see is newer than the newest then, or among the sums that we read.
        newest = UsagePeriod.objects.aggregate(pk=Max("pk"))["pk"] or 0
        marks = DirtyPeriod.objects.filter(period__gte=max(first, rollup.horizon()))
        marked = frozenset(marks.values_list("period", flat=True))
        oldest = UsagePeriod.objects.filter(grouping=GROUPING).aggregate(n=Min("period"))["n"] or 0
        basis = Basis(starts, max(first, oldest), cut, frozenset(m for m in marked if m < cut))
        if basis != self._basis or self._is_touched(cut):
            self._closed, self._basis = _closed(basis), basis
        self._newest = newest
        used = {key: list(amounts) for key, amounts in self._closed.items()}
        for key, period, amount in _recent(basis, marked):
            add(used, starts, key, period, amount)
        for key, period, amount in _recorded(basis, marked):
            add(used, starts, key, period, amount)
        return used

    def _is_touched(self, cut: int) -> bool:
        """Tell whether a closed period was summed anew since the last look."""
        sums = UsagePeriod.objects.filter(pk__gt=self._newest)
        oldest = sums.aggregate(n=Min("period"))["n"]
        return oldest is not None and oldest < cut


def add(used: Used, starts: Mapping[int, Starts], key: int, period: int, amount: Amount) -> None:
    """Add what a key used in a period to the spans that began before its end."""
    for place, begin in enumerate(starts.get(key, ())):
        if begin <= period:
            used[key][place] += amount


def _closed(basis: Basis) -> Used:
    """Return what was used in periods that are over for long."""
    used = {key: [NOTHING] * len(begins) for key, begins in basis.starts.items()}
    alike: defaultdict[Starts, list[int]] = defaultdict(list)
    for key, begins in basis.starts.items():
        alike[begins].append(key)
    for begins, keys in alike.items():
        # From the beginning of one span to that of the next: nothing is added up twice.
        bounds = sorted({begin for begin in begins if begin < basis.cut} | {basis.cut})
        for first, end in pairwise(bounds):
            for key, amount in _summed(keys, first, end, basis.marked):
                add(used, basis.starts, key, first, amount)
    return used


def _summed(
    keys: list[int], first: int, end: int, marked: frozenset[int]
) -> Iterator[tuple[int, Amount]]:
    """Yield what these keys used in a range of periods, but not in those that are marked."""
    sums = UsagePeriod.objects.filter(grouping=GROUPING, period__gte=first, period__lt=end)
    sums = sums.exclude(period__in=[period for period in marked if first <= period < end])
    for place in range(0, len(keys), KEYS_AT_ONCE):
        some = sums.filter(key__in=keys[place : place + KEYS_AT_ONCE]).values("key")
        totals = some.annotate(tokens=Sum(ALL_TOKENS), usd=Sum("cost"))
        for key, tokens, cost in totals.values_list("key", "tokens", "usd"):
            yield key, Amount(tokens, cost)


def _recent(basis: Basis, marked: frozenset[int]) -> Iterator[tuple[int, int, Amount]]:
    sums = UsagePeriod.objects.filter(grouping=GROUPING, period__gte=basis.cut)
    rows = sums.annotate(tokens=ALL_TOKENS).values_list("key", "period", "tokens", "cost")
    for key, period, tokens, cost in rows:
        if period not in marked:
            yield key, period, Amount(tokens, cost)


def _recorded(basis: Basis, marked: frozenset[int]) -> Iterator[tuple[int, int, Amount]]:
    """Yield what was used in marked periods; several of the same spans are told as the first."""
    begins = sorted({begin for begins in basis.starts.values() for begin in begins})
    alike: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for first, end in _ranges(marked, frozenset(begins)):
        alike[bisect_right(begins, first)].append((first, end))
    for ranges in alike.values():
        for number in range(0, len(ranges), RANGES_AT_ONCE):
            for key, amount in _of_records(ranges[number : number + RANGES_AT_ONCE]):
                yield key, ranges[0][0], amount


def _ranges(marked: frozenset[int], begins: frozenset[int]) -> Iterator[tuple[int, int]]:
    """Yield marked periods as ranges, in none of which a span begins."""
    first = None
    for period in sorted(marked):
        first = period if first is None else first
        if period + 1 not in marked or period + 1 in begins:
            yield first, period + 1
            first = None


def _of_records(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, Amount]]:
    within = [
        Q(started_at__gte=periods.start(first), started_at__lt=periods.start(end))
        for first, end in ranges
    ]
    # Not by the column itself: its index would lead through all records there are.
    owner = Coalesce(F("key_id"), Value(0))
    rows = RequestRecord.objects.order_by().filter(reduce(or_, within)).values(owner=owner)
    sums = {f"s_{name}": Sum(name, default=0) for name in (*TOKENS, "cost")}
    for key, *tokens, cost in rows.annotate(**sums).values_list("owner", *sums):
        yield key, Amount(sum(tokens), cost)
