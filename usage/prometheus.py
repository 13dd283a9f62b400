"""What is told to Prometheus of the requests, counted once each when their record is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from prometheus_client.metrics_core import Metric

from lib import counters
from lib.exposition import Counter, Histogram, Table, gauge
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
SESSIONS = "sessions"
TOKENS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
}

Counted = defaultdict[tuple[str, ...], float]


def count(records: Iterable[RequestRecord], known: Collection[str]) -> None:
    """Count records that were written just now, and never before; `known` are names of models."""
    counted: Counted = defaultdict(float)
    sessions = set()
    for record in records:
        _count(record, known, counted)
        _count_attempts(record.trail.get("attempts", ()), counted)
        if record.session:
            sessions.add(f"{record.key_id}:{record.session}")
    counters.see(SESSIONS, sessions)
    counters.add_all({key: by for key, by in counted.items() if by})


def gauges(seen: Mapping[str, int]) -> Iterator[Metric]:
    """Return how many sessions there were in the last hour."""
    help = "Sessions with a request that ended in the last hour, to about one percent."
    yield gauge("sessions_active", help, {(): seen[SESSIONS]})


def _count(record: RequestRecord, known: Collection[str], counted: Counted) -> None:
    model = known_models.label(record.answered_by or record.model, known)
    whose = record.provider or "none", model
    counted["requests", *whose, record.ended, f"{record.status // 100}xx"] += 1
    stream = "true" if record.stream else "false"
    for histogram, end in ((FIRST_BYTE, record.first_byte_at), (DURATION, record.ended_at)):
        if end is not None:
            seconds = max(0.0, (end - record.started_at).total_seconds())
            bucket, total = histogram.observed(seconds, model, stream)
            counted[bucket] += 1
            counted[total] += seconds
    for kind, field in TOKENS.items():
        counted["tokens", *whose, kind] += getattr(record, field) or 0
    counted["thinking_tokens", *whose] += record.thinking_tokens or 0
    counted["web_searches", *whose] += record.web_searches or 0
    counted["cost_micro_usd", *whose] += record.cost or 0
    if record.cost is None and (record.input_tokens or record.output_tokens):
        counted["unpriced_requests", *whose] += 1
    counted["possible_double_spends",] += record.possible_double_spend
    counted["body_bytes", "received"] += record.bytes_received
    counted["body_bytes", "sent"] += record.bytes_sent


def _count_attempts(attempts: Iterable[Mapping[str, object]], counted: Counted) -> None:
    before: tuple[object, ...] = ()
    for attempt in attempts:
        account, row = attempt.get("account"), str(attempt.get("row"))
        counted["attempts", row] += 1
        if row == "quota":
            counted["limiter_refusals", str(account)] += 1
        if before:
            counted["retries" if before == (account,) else "failovers",] += 1
        # A client's own login is no account, and its attempts are attempts all the same.
        before = (account,)
