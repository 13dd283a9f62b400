"""Forget records and sums of long ago, the oldest first, in batches that hold no lock for long.

Records go when their period has been summed; from then on its sums are not made again, which
`usage.rollup` knows by the horizon that is moved before anything is deleted.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Min, QuerySet
from django.utils import timezone

from usage import periods
from usage.groupings import GROUPINGS, LATENCIES
from usage.models import DirtyPeriod, Horizon, LatencyPeriod, RequestRecord, UsagePeriod
from usage.rollup import MEASURES, horizon

BATCH = 1000
SECONDS = 120.0


def prune(now: datetime | None = None, seconds: float = SECONDS) -> int:
    """Delete what is older than RECORD_DAYS and ROLLUP_DAYS; return how many rows went."""
    now, end = now or timezone.now(), time.monotonic() + seconds
    first = _move_horizon(now - timedelta(days=settings.CONFIG.record_days))
    records = RequestRecord.objects.filter(started_at__lt=periods.start(first))
    gone = _delete(records, "started_at", end)
    last = periods.of(now - timedelta(days=settings.CONFIG.rollup_days))
    for grouping in GROUPINGS:
        sums = UsagePeriod.objects.filter(grouping=grouping, period__lt=last)
        gone += _delete(sums, "period", end)
    for grouping in LATENCIES:
        for measure in MEASURES:
            times = LatencyPeriod.objects.filter(
                grouping=grouping, measure=measure, period__lt=last
            )
            gone += _delete(times, "period", end)
    return gone


def _move_horizon(oldest: datetime) -> int:
    """Say from when on records are kept, and return it; never beyond what waits to be summed."""
    with transaction.atomic():
        waits = DirtyPeriod.objects.aggregate(first=Min("period"))["first"]
        kept = periods.of(oldest)
        first = max(horizon(), kept if waits is None else min(kept, waits))
        Horizon.objects.update_or_create(pk=1, defaults={"period": first})
    return first


def _delete(rows: QuerySet[Any], by: str, end: float) -> int:
    gone = 0
    while time.monotonic() < end:
        batch = list(rows.order_by(by).values_list("pk", flat=True)[:BATCH])
        rows.model._default_manager.filter(pk__in=batch).delete()
        gone += len(batch)
        if len(batch) < BATCH:
            break
    return gone
