"""How far the limit windows were used over time: one sample per account, window and step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from accounts.models import WindowSample

KEPT = timedelta(days=14)
BATCH = 500
# Fine enough to tell the use of an hour or of a day, and few enough for pages of many accounts.
STEPS = {"5h": timedelta(minutes=5)}
LONG_STEP = timedelta(minutes=30)
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Point:
    """One sample; `utilization` is a fraction (1.0 = spent)."""

    at: datetime
    utilization: float
    reset_at: datetime | None = None
    status: str = ""


def points(account_id: int, name: str, since: datetime, until: datetime) -> list[Point]:
    """Return the samples of one window from `since` to before `until`, oldest first."""
    rows = WindowSample.objects.filter(account=account_id, name=name, at__gte=since, at__lt=until)
    fields = rows.order_by("at").values_list("at", "utilization", "reset_at", "status")
    return [Point(*row) for row in fields]


def step(name: str, at: datetime) -> datetime:
    """Return the beginning of the step that a sample of this moment stands for."""
    length = STEPS.get(name, LONG_STEP)
    return at - (at - EPOCH) % length


def put(latest: Iterable[WindowSample], late: Iterable[WindowSample]) -> None:
    """Store samples, at most one of a window and step.

    The `latest` replace what is there for their step; the `late`, which came out of order, only
    fill a step of which nothing is known.
    """
    WindowSample.objects.bulk_create(
        latest,
        update_conflicts=True,
        unique_fields=("account", "name", "at"),
        update_fields=("status", "utilization", "reset_at"),
    )
    WindowSample.objects.bulk_create(late, ignore_conflicts=True)


def prune(now: datetime) -> int:
    """Delete the samples that are too old, a few at a time; return how many there were."""
    pruned = 0
    old = WindowSample.objects.filter(at__lt=now - KEPT)
    while batch := list(old.values_list("pk", flat=True)[:BATCH]):
        WindowSample.objects.filter(pk__in=batch).delete()
        pruned += len(batch)
    return pruned
