"""Reports and records as CSV and as lines of JSON, made piece by piece while they are sent."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db.models import Min, Q
from django.http import HttpRequest, StreamingHttpResponse

from events import naming
from usage import periods, reports, rollup
from usage.groupings import FACTS, knowing
from usage.models import DirtyPeriod, RequestRecord, UsagePeriod
from usage.reports import Question

FORMATS = {"csv": "text/csv; charset=utf-8", "json": "application/x-ndjson"}
KINDS = ("report", "records")
BATCH = 300
# Periods without such records that are read over, rather than asked for anew.
GAP = 4
# A cell that begins so is a formula to a spreadsheet; some look behind spaces, too.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
COLUMNS = (
    "request_id",
    "upstream_id",
    "started_at",
    "first_byte_at",
    "ended_at",
    "key_id",
    "key_name",
    "account_id",
    "account_name",
    "organization",
    "provider",
    "session",
    "endpoint",
    "model",
    "answered_by",
    "stream",
    "status",
    "ended",
    "verdict",
    "attempts",
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
    "cost",
    "saved",
    "price_version",
    "parts",
    "trail",
)
KEPT = tuple(name for name in COLUMNS if not name.endswith("_name"))
UNITS = {"cost": "cost_micro_usd", "saved": "saved_micro_usd"}
Line = Mapping[str, Any]


def answer(request: HttpRequest, kind: str, form: str, asked: Question) -> StreamingHttpResponse:
    """Return an answer that streams; raise BadReport before anything is sent."""
    chunks = written(kind, form, asked)
    # Django would gather an ordinary iterator whole before it sends it by ASGI.
    content = _in_thread(chunks) if isinstance(request, ASGIRequest) else chunks
    found = StreamingHttpResponse(content, content_type=FORMATS[form])
    found["Content-Disposition"] = f'attachment; filename="usage-{kind}.{form}"'
    return found


def written(kind: str, form: str, asked: Question) -> Iterator[bytes]:
    """Return pieces of the file; raise BadReport at once, not at the first piece."""
    if kind == "records":
        reports.check_range(asked)
        return _batches([UNITS.get(name, name) for name in COLUMNS], form, records(asked))
    report = reports.report(asked)
    lines: list[Line] = [
        {"group": row.value, "label": row.label, **row.figures} for row in report.rows
    ]
    return _batches(["group", "label", *report.columns], form, [lines])


def records(asked: Question) -> Iterator[list[Line]]:
    """Yield batches of the records of a range, in their order.

    Each batch is a query of its own that goes on where the last one ended: no cursor and no
    transaction stays open for as long as a slow reader takes.
    """
    for first, end in _stretches(asked):
        rows = rollup.filtered(
            RequestRecord.objects.filter(started_at__lt=periods.start(end)), asked.filters
        ).order_by("started_at", "pk")
        last = Q(started_at__gte=periods.start(first))
        while batch := list(rows.filter(last).values("pk", *KEPT)[:BATCH]):
            at, pk = batch[-1]["started_at"], batch[-1]["pk"]
            last = Q(started_at__gte=at) & (Q(started_at__gt=at) | Q(pk__gt=pk))
            yield _told(batch)
            if len(batch) < BATCH:
                break


def safe(cell: Any) -> Any:
    """Return a text that no spreadsheet takes for a formula; numbers stay numbers."""
    if isinstance(cell, str) and cell.lstrip(" \u00a0\ufeff").startswith(FORMULA):
        return f"'{cell}"
    return cell


def _stretches(asked: Question) -> Iterator[tuple[int, int]]:
    """Yield the parts of the range, from a period to before another, that have such records.

    The sums know where they are; without them, a rare filter would read every record there is.
    """
    first, end = reports.periods_of(asked)
    facts = {name: value for name, value in asked.filters.items() if name in FACTS and value}
    if not facts:
        yield first, end
        return
    # Sums reach back far longer than records.
    oldest = RequestRecord.objects.aggregate(at=Min("started_at"))["at"]
    if oldest is None:
        return
    within = Q(period__gte=max(first, periods.of(oldest)), period__lt=end)
    rows = UsagePeriod.objects.filter(within, grouping=knowing(facts))
    for name, value in facts.items():
        rows = rows.filter(
            **{f"{name}__in": [value, rollup.OTHERS] if name == "model" else [value]}
        )
    found = set(rows.values_list("period", flat=True).distinct())
    found |= set(DirtyPeriod.objects.filter(within).values_list("period", flat=True))
    begin = last = None
    for period in sorted(found):
        if begin is None or last is None:
            begin = period
        elif period - last > GAP:
            yield begin, last + 1
            begin = period
        last = period
    if begin is not None and last is not None:
        yield begin, last + 1


def _told(batch: list[dict[str, Any]]) -> list[Line]:
    people = {f"{who}:{one[f'{who}_id']}" for one in batch for who in ("key", "account")}
    names = naming.names(people - {"key:None", "account:None"})
    return [
        {
            UNITS.get(name, name): one[name]
            if name in one
            else names.get(f"{name.removesuffix('_name')}:{one[name.replace('name', 'id')]}", "")
            for name in COLUMNS
        }
        for one in batch
    ]


def _batches(columns: list[str], form: str, batches: Iterable[list[Line]]) -> Iterator[bytes]:
    if form == "json":
        for batch in batches:
            yield b"".join(
                orjson.dumps({name: line[name] for name in columns}) + b"\n" for line in batch
            )
        return
    yield _csv([columns])
    for batch in batches:
        yield _csv([[_cell(line[name]) for name in columns] for line in batch])


def _csv(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode() if value else ""
    if isinstance(value, bool):
        return str(value).lower()
    return safe(value)


async def _in_thread(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    following = sync_to_async(lambda: next(chunks, None))
    while (chunk := await following()) is not None:
        yield chunk
