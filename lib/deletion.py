"""Delete rows, the oldest first, in batches that hold no lock for long."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

BATCH = 500


def delete(rows: QuerySet[Any], batches: int) -> int:
    """Delete so many batches of rows at most; return how many rows went."""
    gone = 0
    for _ in range(batches):
        batch = list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH])
        rows.model._default_manager.filter(pk__in=batch).delete()
        gone += len(batch)
        if len(batch) < BATCH:
            break
    return gone
