"""Request records on their way from the data plane to the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from django.apps import apps

from lib import streams
from lib.streams import Appender, Row
from usage import losses
from usage.models import RequestRecord

STREAM = "requests"
appender = Appender(STREAM)


def append(row: Row) -> None:
    """Queue one record; field names are those of RequestRecord, times are epoch seconds."""
    appender.append(row)


def drain() -> int:
    """Write what waits in the stream; return how many records that was."""
    return streams.drain(STREAM, write, lost=partial(losses.note, STREAM))


def write(rows: Sequence[Row]) -> None:
    """Write records in one batch; one that exists already (a redelivery) stays the one it is."""
    keys = _existing("sessions_limit.ClientKey", {row["key"] for row in rows})
    accounts = _existing("accounts.Account", {row["account"] for row in rows})
    records = {row["request_id"]: _record(row, keys, accounts) for row in rows}
    # Not `ignore_conflicts`: on SQLite that drops a row with any fault at all, and says nothing.
    RequestRecord.objects.bulk_create(
        records.values(),
        update_conflicts=True,
        unique_fields=["request_id"],
        update_fields=["ended"],
        batch_size=500,
    )


def _existing(model: str, ids: set[int | None]) -> set[int]:
    """Return which of the ids still have a row: a record outlives its key and its account."""
    rows = apps.get_model(model)._default_manager.filter(pk__in=ids - {None})
    return set(rows.values_list("pk", flat=True))


def _record(row: Row, keys: set[int], accounts: set[int]) -> RequestRecord:
    return RequestRecord(
        request_id=row["request_id"],
        key_id=row["key"] if row["key"] in keys else None,
        account_id=row["account"] if row["account"] in accounts else None,
        session=row["session"],
        endpoint=row["endpoint"],
        # A client chooses this text; PostgreSQL takes no NUL.
        model=row["model"].replace("\0", "")[:128],
        stream=row["stream"],
        status=row["status"],
        ended=row["ended"],
        attempts=row["attempts"],
        trail=row.get("trail", {}),
        possible_double_spend=row.get("possible_double_spend", False),
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cache_read_tokens=row["cache_read_tokens"],
        cache_write_tokens=row["cache_write_tokens"],
        started_at=_time(row["started_at"]),
        first_byte_at=row["first_byte_at"] and _time(row["first_byte_at"]),
        ended_at=_time(row["ended_at"]),
    )


def _time(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
