"""What was spent, by whom, and how well it went, in any range of time and any zone.

Reports read sums only, so they take whole quarters of an hour; those by session read records, of
which there may not be too many.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db import connection, transaction
from django.db.models import IntegerField, QuerySet, Sum
from django.db.models.expressions import RawSQL

from events import naming
from usage import latency, metrics, periods, rollup
from usage.groupings import FACTS, LATENCIES, SUMS, knowing
from usage.models import LatencyPeriod, RequestRecord, UsagePeriod

TIMES = ("hour", "day", "week", "month")
SESSION = "session"
GROUPS = (*TIMES, *FACTS, SESSION)
FILTERS = (*FACTS, SESSION)
LONGEST = timedelta(days=3 * 366)
LONGEST_OF_HOURS = timedelta(days=32)
# Sessions are read from their records, so that a range may not have too many.
MOST_RECORDS = 120_000
NAMED = ("account", "key")


class BadReport(Exception):
    """There is no such report; `field` is what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Question:
    """What a report is about: the range is [since, until), filters are facts and their values."""

    metric: str
    group: str
    since: datetime
    until: datetime
    zone: ZoneInfo
    filters: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one member of the group: its value, and what people call it."""

    value: str | int
    label: str
    figures: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Report:
    """The rows of a report and its totals; times in their order, others the largest first."""

    question: Question
    columns: Mapping[str, metrics.Kind]
    rows: list[Row]
    total: Mapping[str, float | None]


def report(asked: Question) -> Report:
    """Return what was asked; raise BadReport for what is not known."""
    with _planned_for_short_queries():
        return _report(asked)


def _report(asked: Question) -> Report:
    _check(asked)
    if asked.metric in metrics.LATENCY:
        counts = _latencies(asked)
        figures = {value: metrics.percentiles(count) for value, count in counts.items()}
        whole_counts: Counter[int] = Counter()
        for count in counts.values():
            whole_counts.update(count)
        total = metrics.percentiles(whole_counts)
    else:
        sums = _of_sessions(asked) if asked.group == SESSION else _sums(asked)
        whole = _whole(sums.values())
        figures = {v: metrics.figures(asked.metric, one, whole) for v, one in sums.items()}
        total = metrics.figures(asked.metric, whole, whole)
    columns = metrics.columns(asked.metric)
    return Report(asked, columns, _rows(asked, figures, next(iter(columns))), total)


def check_range(asked: Question) -> None:
    """Raise BadReport for a range that ends before it begins, or is too long for anybody."""
    if not asked.since < asked.until:
        raise BadReport("until", "The range ends before it begins.")
    if asked.until - asked.since > LONGEST:
        raise BadReport("since", f"A range has {LONGEST.days} days at most.")


@contextmanager
def _planned_for_short_queries() -> Iterator[None]:
    """Keep PostgreSQL from compiling queries of many sums, which takes longer than they do."""
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL jit = off")
        yield


def periods_of(asked: Question) -> tuple[int, int]:
    """Return the first period of a report and the one after its last."""
    return periods.of(asked.since), periods.after(asked.until)


def _check(asked: Question) -> None:
    if asked.metric not in metrics.NAMES:
        raise BadReport("metric", f"There is no metric {asked.metric!r}.")
    if asked.group not in GROUPS:
        raise BadReport("group", f"Nothing can be grouped by {asked.group!r}.")
    check_range(asked)
    if asked.group == "hour" and asked.until - asked.since > LONGEST_OF_HOURS:
        raise BadReport("since", f"By hour, a range has {LONGEST_OF_HOURS.days} days at most.")
    if asked.group == SESSION and SESSION not in asked.filters:
        _check_size(asked)
    if unknown := asked.filters.keys() - set(FILTERS):
        raise BadReport(min(unknown), "Nothing can be filtered by this.")
    if SESSION in asked.filters and asked.group != SESSION:
        raise BadReport("session", "One session's figures are told by session only.")
    if asked.metric in metrics.LATENCY and knowing(_facts(asked), LATENCIES) is None:
        told = "Times are told of all, of an account, of a key or of a model, not of two of these."
        raise BadReport("group", told)


def _check_size(asked: Question) -> None:
    first, end = periods_of(asked)
    rows = UsagePeriod.objects.filter(grouping="all", period__gte=first, period__lt=end)
    if (rows.aggregate(n=Sum("requests"))["n"] or 0) > MOST_RECORDS:
        told = f"By session, a range has {MOST_RECORDS:,} requests at most; choose a shorter one."
        raise BadReport("since", told)


def _facts(asked: Question) -> set[str]:
    return {*asked.filters, asked.group} - set(TIMES)


def _sums(asked: Question) -> dict[Any, dict[str, int]]:
    grouping = knowing(_facts(asked))
    rows = UsagePeriod.objects.filter(grouping=grouping, **asked.filters)
    # Not all of them: to add up is most of the work.
    names = metrics.needs(asked.metric)
    found: defaultdict[Any, dict[str, int]] = defaultdict(lambda: dict.fromkeys(SUMS, 0))
    for value, numbers in _grouped(asked, rows, [Sum(name) for name in names]):
        sums = found[value]
        for name, number in zip(names, numbers, strict=True):
            sums[name] += number
    return found


def _latencies(asked: Question) -> dict[Any, Counter[int]]:
    grouping = knowing(_facts(asked), LATENCIES)
    rows = LatencyPeriod.objects.filter(grouping=grouping, measure=asked.metric, **asked.filters)
    found: defaultdict[Any, Counter[int]] = defaultdict(Counter)
    sums = [Sum(f"b{number}") for number in range(latency.BUCKETS)]
    for value, counts in _grouped(asked, rows, sums):
        one = found[value]
        for bucket, count in enumerate(counts):
            if count:
                one[bucket] += count
    return found


def _grouped(
    asked: Question, rows: QuerySet[Any], wanted: list[Any]
) -> Iterable[tuple[Any, tuple[int, ...]]]:
    """Yield (value, numbers) of the asked group; a value may come several times."""
    first, end = periods_of(asked)
    numbers = {f"n{place}": one for place, one in enumerate(wanted)}
    if asked.group not in TIMES:
        within = rows.filter(period__gte=first, period__lt=end)
        grouped = within.values(asked.group).annotate(**numbers)
        for value, *found in grouped.values_list(asked.group, *numbers):
            yield value, tuple(found)
        return
    size = periods.length(asked.group)
    for part in periods.segments(first, end, asked.zone):
        within = rows.filter(period__gte=part.first, period__lt=part.end)
        unit = RawSQL("(period + %s) / %s", (part.offset, size), output_field=IntegerField())
        grouped = within.annotate(unit=unit).values("unit").annotate(**numbers)
        for number, *found in grouped.values_list("unit", *numbers):
            yield periods.label(number, part.offset, asked.group), tuple(found)


def _of_sessions(asked: Question) -> dict[Any, dict[str, int]]:
    records = RequestRecord.objects.order_by().filter(
        started_at__gte=periods.start(periods_of(asked)[0]),
        started_at__lt=periods.start(periods_of(asked)[1]),
    )
    rows = rollup.summed(rollup.filtered(records, asked.filters), SESSION)
    return {session: dict(zip(SUMS, sums, strict=True)) for session, *sums in rows}


def _whole(sums: Iterable[Mapping[str, int]]) -> dict[str, int]:
    whole = dict.fromkeys(SUMS, 0)
    for one in sums:
        for name in SUMS:
            whole[name] += one[name]
    return whole


def _rows(asked: Question, figures: Mapping[Any, Mapping[str, Any]], first: str) -> list[Row]:
    if asked.group in TIMES:
        parts = list(periods.segments(*periods_of(asked), asked.zone))
        nothing = _nothing(asked.metric)
        labels = periods.labels(parts, asked.group)
        return [Row(label, label, figures.get(label, nothing)) for label in labels]
    order = sorted(figures, key=lambda value: (-(figures[value][first] or 0), value))
    names = labelled(asked.group, order)
    return [Row(value, names[value], figures[value]) for value in order]


def labelled(group: str, values: Iterable[Any]) -> dict[Any, str]:
    """Return what people call members of a group; accounts and keys that are gone keep a number."""
    if group not in NAMED:
        return {value: str(value) or "none" for value in values}
    known = naming.names(f"{group}:{value}" for value in values)
    return {
        value: known.get(f"{group}:{value}", f"removed ({value})") if value else "none"
        for value in values
    }


def _nothing(metric: str) -> Mapping[str, float | None]:
    if metric in metrics.LATENCY:
        return metrics.percentiles({})
    nothing = dict.fromkeys(SUMS, 0)
    return metrics.figures(metric, nothing, nothing)
