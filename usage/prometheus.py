"""What is told to Prometheus of the requests, counted once each when their record is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lib import counters
from lib.exposition import Counter, Histogram, Table
from usage import known_models
from usage.models import RequestRecord

MODEL = ("provider", "model")
FIRST_BYTE = Histogram(
    "request_first_byte_seconds", "From a request's start to its first byte.", ("model", "stream")
)
DURATION = Histogram(
    "request_duration_seconds", "From a request's start to its end.", ("model", "stream")
)
METRICS: Table = (
    Counter("requests", "Relayed requests, by how they ended.", (*MODEL, "ended", "status")),
    FIRST_BYTE,
    DURATION,
    Counter("tokens", "Tokens that upstreams counted.", (*MODEL, "kind")),
    Counter("thinking_tokens", "Those of the output tokens that were thinking.", MODEL),
    Counter("web_searches", "Web searches by the upstream.", MODEL),
    Counter("cost_micro_usd", "What requests cost, in millionths of a US dollar.", MODEL),
    Counter("unpriced_requests", "Requests that used tokens for which no price is known.", MODEL),
    Counter("attempts", "Attempts, by the row that judged them.", ("verdict",)),
    Counter("retries", "Further attempts at the same account."),
    Counter("failovers", "Further attempts at another account."),
    Counter("possible_double_spends", "Requests that may have been billed twice."),
    Counter("limiter_refusals", "Requests that an account's own limits turned away.", ("account",)),
    Counter("body_bytes", "Bytes of bodies, received from and sent to clients.", ("direction",)),
    Counter("lost_rows", "Rows dropped on their way to the database.", ("stream",)),
)
TOKENS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
}


def count(records: Iterable[RequestRecord], known: Collection[str] | None = None) -> None:
    """Count records that were written just now, and never before; `known` are names of models."""
    known = known_models.known() if known is None else known
    for record in records:
        _count(record, record.provider or "none", known)
        _count_attempts([dict(attempt) for attempt in record.trail.get("attempts", ())])


def _count(record: RequestRecord, provider: str, known: Collection[str]) -> None:
    model = known_models.label(record.answered_by or record.model, known)
    whose = provider, model
    counters.add("requests", *whose, record.ended, f"{record.status // 100}xx")
    stream = "true" if record.stream else "false"
    for histogram, end in ((FIRST_BYTE, record.first_byte_at), (DURATION, record.ended_at)):
        if end is not None:
            seconds = max(0.0, (end - record.started_at).total_seconds())
            bucket, total = histogram.observed(seconds, model, stream)
            counters.add(*bucket)
            counters.add(*total, by=seconds)
    for kind, field in TOKENS.items():
        _add("tokens", *whose, kind, by=getattr(record, field))
    _add("thinking_tokens", *whose, by=record.thinking_tokens)
    _add("web_searches", *whose, by=record.web_searches)
    _add("cost_micro_usd", *whose, by=record.cost)
    if record.cost is None and (record.input_tokens or record.output_tokens):
        counters.add("unpriced_requests", *whose)
    _add("possible_double_spends", by=int(record.possible_double_spend))
    _add("body_bytes", "received", by=record.bytes_received)
    _add("body_bytes", "sent", by=record.bytes_sent)


def _count_attempts(attempts: list[dict[str, object]]) -> None:
    before: object = None
    for attempt in attempts:
        account, row = attempt.get("account"), str(attempt.get("row"))
        counters.add("attempts", row)
        if row == "quota":
            counters.add("limiter_refusals", str(account))
        if before is not None:
            counters.add("retries" if account == before else "failovers")
        before = account


def _add(*key: str, by: int | None) -> None:
    if by:
        counters.add(*key, by=by)
