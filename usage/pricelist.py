"""The operator's own prices: set, removed, and put on records of the past."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import transaction

from events import journal
from usage import prices
from usage.models import Price


def put(
    model: str, valid_from: datetime, *, by: str, prompt_from: int = 0, **usd: Decimal
) -> Price:
    """Set what a model costs from a moment on; `usd` are the other columns of Price.

    What was said before for the same moment and length is replaced by a new row: records name the
    row that priced them, and it must not change its meaning.
    """
    with transaction.atomic():
        same = Price.objects.filter(model=model, valid_from=valid_from, prompt_from=prompt_from)
        same.delete()
        price = Price.objects.create(
            model=model, valid_from=valid_from, prompt_from=prompt_from, **usd
        )
        told = {name: str(value) for name, value in usd.items()}
        begins = valid_from.isoformat()
        journal.record(
            "price.set", f"price:{price.pk}", by=by, name=model, valid_from=begins, usd=told
        )
    return price


def remove(price: Price, by: str) -> bool:
    """Take a price out; False when it is gone already. What it priced stays priced."""
    with transaction.atomic():
        gone, _ = Price.objects.filter(pk=price.pk).delete()
        if gone:
            journal.record("price.removed", f"price:{price.pk}", by=by, name=price.model)
    return bool(gone)


def reprice(since: datetime, until: datetime, *, by: str, only_unknown: bool = False) -> int:
    """Put the prices in force on the records of [since, until); return how many costs changed."""
    changed = prices.reprice(since, until, only_unknown=only_unknown)
    journal.record(
        "price.applied",
        "usage",
        by=by,
        changed=changed,
        since=since.isoformat(),
        until=until.isoformat(),
        only_unknown=only_unknown,
    )
    return changed
