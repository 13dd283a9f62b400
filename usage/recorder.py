"""Request records on their way from the data plane to the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from django.apps import apps
from django.db import transaction

from lib import streams
from lib.streams import Appender, Row
from usage import known_models, latency, losses, prices, prometheus, rollup
from usage.amounts import recorded_name
from usage.models import RequestRecord

STREAM = "requests"
# Copied as they are; a row of an older release, that waited during an update, lacks some.
COPIED = (
    "verdict",
    "upstream_id",
    "trail",
    "possible_double_spend",
    "is_partial",
    "bytes_received",
    "bytes_sent",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "thinking_tokens",
    "web_searches",
    "web_fetches",
    "service_tier",
    "speed",
    "geo",
    "parts",
)
appender = Appender(STREAM)


def append(row: Row) -> None:
    """Queue one record; field names are those of RequestRecord, times are epoch seconds."""
    appender.append(row)


def drain() -> int:
    """Write what waits in the stream; return how many records that was."""
    return streams.drain(STREAM, write, lost=partial(losses.note, STREAM))


def write(rows: Sequence[Row]) -> None:
    """Write records in one batch; one that exists already (a redelivery) stays the one it is."""
    keys = _keys({row["key"] for row in rows} - {None})
    accounts = _accounts({row["account"] for row in rows} - {None})
    records = {row["request_id"]: _record(row, keys, accounts) for row in rows}
    prices.put(records.values(), prices.own())
    known = known_models.known()
    with transaction.atomic():
        rollup.mark(record.started_at for record in records.values())
        # Nobody writes one of these at the same time: the marks are locks.
        same = RequestRecord.objects.filter(request_id__in=records)
        seen = set(same.order_by().values_list("request_id", flat=True))
        # Not `ignore_conflicts`: SQLite drops a row with any fault at all then, and says nothing.
        RequestRecord.objects.bulk_create(
            records.values(),
            update_conflicts=True,
            unique_fields=["request_id"],
            update_fields=["ended"],
            batch_size=500,
        )
    prometheus.count((record for id, record in records.items() if id not in seen), known)


def _keys(ids: set[int]) -> set[int]:
    """Return which of the keys still have a row: a record outlives its key and its account."""
    rows = apps.get_model("sessions_limit.ClientKey")._default_manager.filter(pk__in=ids)
    return set(rows.values_list("pk", flat=True))


def _accounts(ids: set[int]) -> dict[int, tuple[str, str]]:
    """Return kind and organisation of those accounts that still have a row."""
    rows = apps.get_model("accounts.Account")._default_manager.filter(pk__in=ids)
    told = rows.values_list("pk", "kind", "organization_uuid")
    return {account: (kind, organization) for account, kind, organization in told}


def _record(row: Row, keys: set[int], accounts: dict[int, tuple[str, str]]) -> RequestRecord:
    # Whoever was served by no account of the pool may say what else it was.
    provider, organization = accounts.get(row["account"], (row.get("provider", ""), ""))
    return RequestRecord(
        request_id=row["request_id"],
        key_id=row["key"] if row["key"] in keys else None,
        account_id=row["account"] if row["account"] in accounts else None,
        provider=provider,
        organization=organization,
        session=row["session"],
        endpoint=row["endpoint"],
        model=recorded_name(row["model"]),
        answered_by=recorded_name(row.get("answered_by", "")),
        stream=row["stream"],
        status=row["status"],
        ended=row["ended"],
        attempts=row["attempts"],
        started_at=_time(row["started_at"]),
        first_byte_at=row["first_byte_at"] and _time(row["first_byte_at"]),
        ended_at=_time(row["ended_at"]),
        first_byte_bucket=latency.bucket(row["started_at"], row["first_byte_at"]),
        duration_bucket=latency.bucket(row["started_at"], row["ended_at"]),
        **{name: row[name] for name in COPIED if name in row},
    )


def _time(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
