"""Models that used tokens nobody knows the price of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import F, Max, Min, Sum
from django.utils import timezone

from usage import periods
from usage.models import UsagePeriod


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A model, its requests without a price, and when they came."""

    model: str
    requests: int
    first: datetime
    last: datetime


def find(now: datetime | None = None) -> list[Unpriced]:
    """Return the models with records to be priced, those of the most requests first."""
    since = (now or timezone.now()) - timedelta(days=settings.CONFIG.record_days)
    rows = UsagePeriod.objects.filter(
        grouping="model", period__gte=periods.of(since), unpriced__gt=0
    )
    found = rows.values("model").annotate(
        n=Sum("unpriced"), first=Min("period"), last=Max("period")
    )
    return [
        Unpriced(
            row["model"] or "none",
            row["n"],
            periods.start(row["first"]),
            periods.start(row["last"]),
        )
        for row in found.order_by(F("n").desc(), "model")
    ]
