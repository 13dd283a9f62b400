"""The prices in force, put on records when they are written and, by command, once more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from django.apps import apps
from django.db import transaction

from usage import periods, pricing, rollup
from usage.amounts import Prices
from usage.models import Price, RequestRecord
from usage.pricing import OwnPrice

BATCH = 500
# What `pricing.use_of` reads.
NEEDED = (
    "answered_by",
    "model",
    "provider",
    "started_at",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "web_searches",
    "service_tier",
    "speed",
    "geo",
    "parts",
)


def own() -> list[OwnPrice]:
    """Return the prices that operators set."""
    return [
        OwnPrice(
            id=row.pk,
            model=row.model,
            valid_from=row.valid_from,
            input=row.input,
            output=row.output,
            cache_read=row.cache_read,
            cache_write_5m=row.cache_write_5m,
            cache_write_1h=row.cache_write_1h,
            web_search=row.web_search,
            prompt_from=row.prompt_from,
        )
        for row in Price.objects.all()
    ]


def in_force() -> Prices:
    """Return what rows are priced by that are not in the database yet."""
    accounts = apps.get_model("accounts.Account")._default_manager
    return Prices(own(), dict(accounts.values_list("pk", "kind")))


def put(records: Iterable[RequestRecord], mine: Sequence[OwnPrice]) -> None:
    """Put the cost on records that are not saved yet; None where a price is not known."""
    for record in records:
        used = pricing.use_of({name: getattr(record, name) for name in NEEDED})
        cost = pricing.price(used, mine) if used else None
        record.cost = cost.micro_usd if cost else None
        record.price_version = cost.version if cost else ""
        record.saved = pricing.saved(used, cost, mine) if used else None


def reprice(since: datetime, until: datetime, *, only_unknown: bool = False) -> int:
    """Price the records that began in [since, until) anew; return how many costs changed."""
    mine, changed, last = own(), 0, 0
    # What is older is about to be deleted, and is not summed again.
    since = max(since, periods.start(rollup.horizon()))
    rows = RequestRecord.objects.filter(started_at__gte=since, started_at__lt=until).order_by("pk")
    if only_unknown:
        rows = rows.filter(cost=None)
    while batch := list(rows.filter(pk__gt=last)[:BATCH]):
        last = batch[-1].pk
        before = {record.pk: _priced(record) for record in batch}
        put(batch, mine)
        moved = [record for record in batch if before[record.pk] != _priced(record)]
        with transaction.atomic():
            rollup.mark(record.started_at for record in moved)
            RequestRecord.objects.bulk_update(moved, ["cost", "price_version", "saved"])
        changed += sum(before[record.pk][0] != record.cost for record in moved)
    return changed


def _priced(record: RequestRecord) -> tuple[int | None, str, int | None]:
    return record.cost, record.price_version, record.saved
