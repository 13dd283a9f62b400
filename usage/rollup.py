"""Sums of request records per quarter of an hour: exact, and the same however often they are made.

Whoever writes records marks their periods in the same transaction. A period is summed by deleting
its mark, reading its records and replacing its sums, all in one transaction: a second worker finds
no mark, a killed one leaves it, and a record that comes in the meantime marks the period again.
The mark comes before the records in every transaction, so that no two wait for each other.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import Case, Count, F, Q, QuerySet, Sum, Value, When
from django.db.models.functions import Coalesce
from django.utils import timezone

from usage import periods
from usage.groupings import FACTS, GROUPINGS, LATENCIES, SUMS
from usage.models import DirtyPeriod, Horizon, LatencyPeriod, RequestRecord, UsagePeriod

MEASURES = {"first_byte": "first_byte_bucket", "duration": "duration_bucket"}
# Clients choose the names of models: of one period no more of them are told apart.
MOST_MODELS = 200
OTHERS = "(others)"
BATCH = 500
# Somebody wanted it so.
NEUTRAL = ("client_gone", "revoked", "session_revoked", "disabled")
FAILED = ("upstream_cut", "error_in_stream", "timeout")
SUCCESS = Q(status__lt=400, ended="complete")
ERROR = Q(status__gte=400) & ~Q(ended__in=NEUTRAL) | Q(ended__in=FAILED)
UNPRICED = Q(cost=None) & (Q(input_tokens__isnull=False) | Q(output_tokens__isnull=False))
COUNTED = {
    "requests": Q(),
    "successes": SUCCESS,
    "errors": ERROR,
    "unpriced": UNPRICED,
    "partial": Q(is_partial=True),
    "double_billed": Q(possible_double_spend=True),
}
ANSWERED = Case(When(answered_by="", then=F("model")), default=F("answered_by"))
Sums = tuple[int, ...]
log = logging.getLogger(__name__)


def mark(moments: Iterable[datetime]) -> None:
    """Say that records of these times change, before they do, in the caller's transaction."""
    now = timezone.now()
    found = sorted({periods.of(moment) for moment in moments})
    # Not DO NOTHING: an existing mark must be locked, or it could go before our records are seen.
    DirtyPeriod.objects.bulk_create(
        [DirtyPeriod(period=period, marked_at=now) for period in found],
        update_conflicts=True,
        unique_fields=["period"],
        update_fields=["marked_at"],
    )


def roll_up(seconds: float = 8.0) -> int:
    """Sum the periods that are marked, the newest first; return how many that was."""
    end = time.monotonic() + seconds
    done = 0
    for period in list(DirtyPeriod.objects.order_by("-period").values_list("period", flat=True)):
        if time.monotonic() >= end:
            break
        try:
            done += sum_up(period)
        except (DatabaseError, ArithmeticError) as error:
            if not connection.is_usable():
                raise
            # It stays marked. Sums too large for their columns must not hold up the others.
            log.error("sum up period %d: %s", period, type(error).__name__)
    return done


def sum_up(period: int) -> bool:
    """Replace the sums of one period by those of its records; False when nobody asked for it."""
    with transaction.atomic():
        claimed, _ = DirtyPeriod.objects.filter(period=period).delete()
        if not claimed:
            return False
        if period < horizon():
            # Some of its records are gone already: its sums stay what they are.
            log.warning("sum up period %d: its records are too old", period)
            return False
        records = RequestRecord.objects.filter(
            started_at__gte=periods.start(period), started_at__lt=periods.start(period + 1)
        ).order_by()
        each = _each(records)
        names = _names(each)
        UsagePeriod.objects.filter(grouping__in=GROUPINGS, period=period).delete()
        UsagePeriod.objects.bulk_create(_usage(period, each, names), batch_size=BATCH)
        LatencyPeriod.objects.filter(
            grouping__in=LATENCIES, measure__in=MEASURES, period=period
        ).delete()
        LatencyPeriod.objects.bulk_create(_latency(period, records, names), batch_size=BATCH)
    return True


def horizon() -> int:
    """Return the first period of which all records are still there."""
    return Horizon.objects.values_list("period", flat=True).first() or 0


def summed(records: QuerySet[RequestRecord], *by: str) -> QuerySet[Any]:
    """Return rows of the facts `by` and of SUMS, in this order."""
    facts = {f"f_{name}": _fact(name) for name in by}
    sums = {
        f"s_{name}": Count("pk", filter=COUNTED[name]) if name in COUNTED else Sum(name, default=0)
        for name in SUMS
    }
    return records.values(**facts).annotate(**sums).values_list(*facts, *sums)


def filtered(
    records: QuerySet[RequestRecord], filters: Mapping[str, str | int]
) -> QuerySet[RequestRecord]:
    """Return the records that have these facts, as the sums tell them."""
    for name, value in filters.items():
        if name == "model":
            records = records.filter(Q(answered_by=value) | Q(answered_by="", model=value))
        elif name in ("account", "key"):
            records = records.filter(**{f"{name}_id": value or None})
        else:
            records = records.filter(**{name: value})
    return records


def _fact(name: str) -> Any:
    if name == "model":
        return ANSWERED
    if name in ("account", "key"):
        return Coalesce(F(f"{name}_id"), Value(0))
    return F(name)


def _each(records: QuerySet[RequestRecord]) -> dict[tuple[Any, ...], Sums]:
    rows = summed(records, *FACTS)
    return {tuple(row[: len(FACTS)]): tuple(row[len(FACTS) :]) for row in rows}


def _names(each: Mapping[tuple[Any, ...], Sums]) -> set[str]:
    """Return the names of models that are told apart: those of the most requests."""
    place = FACTS.index("model")
    counts: Counter[str] = Counter()
    for facts, sums in each.items():
        counts[facts[place]] += sums[0]
    return {name for name, _ in counts.most_common(MOST_MODELS)}


def _usage(
    period: int, each: Mapping[tuple[Any, ...], Sums], names: set[str]
) -> Iterable[UsagePeriod]:
    for grouping, known in GROUPINGS.items():
        totals: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(SUMS))
        for facts, sums in each.items():
            told = dict(zip(FACTS, facts, strict=True))
            if told["model"] not in names:
                told["model"] = OTHERS
            total = totals[tuple(told[name] for name in known)]
            for place, value in enumerate(sums):
                total[place] += value
        for values, total in totals.items():
            columns = dict(zip(known, values, strict=True)) | dict(zip(SUMS, total, strict=True))
            yield UsagePeriod(grouping=grouping, period=period, **columns)


def _latency(
    period: int, records: QuerySet[RequestRecord], names: set[str]
) -> Iterable[LatencyPeriod]:
    facts = ("account", "key", "model")
    for measure, column in MEASURES.items():
        known = records.exclude(**{column: None})
        by = {f"f_{name}": _fact(name) for name in facts} | {"b": F(column)}
        rows = known.values(**by).annotate(n=Count("pk")).values_list(*by, "n")
        counts: defaultdict[tuple[Any, ...], Counter[int]] = defaultdict(Counter)
        for *values, bucket, count in rows:
            told = dict(zip(facts, values, strict=True))
            if told["model"] not in names:
                told["model"] = OTHERS
            for grouping, wanted in LATENCIES.items():
                counts[grouping, tuple((name, told[name]) for name in wanted)][bucket] += count
        for (grouping, columns), found in counts.items():
            buckets = {f"b{number}": count for number, count in found.items()}
            yield LatencyPeriod(
                grouping=grouping, measure=measure, period=period, **dict(columns), **buckets
            )
