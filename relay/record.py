"""What is kept of a request when it is over: one row for the database, one line for the log."""

from __future__ import annotations

import logging
import time
from typing import Any

from relay import spent
from relay.request import ClientRequest
from relay.trail import PASSED_THROUGH, Ended, Trail
from usage import recorder

TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "thinking_tokens",
)
log = logging.getLogger(__name__)


def record(request: ClientRequest, trail: Trail) -> None:
    """Keep what became of a request; nothing of prompt, answer, key or token is in it."""
    ended_at = time.time()
    used = spending(request, trail)
    recorder.append(
        {
            "request_id": request.id,
            "key": request.key.id,
            "session": request.session or "",
            "endpoint": request.endpoint,
            "stream": request.stream,
            "status": trail.status,
            "ended": trail.ended,
            "attempts": len(trail.attempts),
            "trail": trail.as_json(),
            "possible_double_spend": trail.may_be_billed_twice,
            "verdict": trail.attempts[-1].row if trail.attempts else "",
            "upstream_id": trail.upstream_id,
            "is_partial": trail.is_partial,
            "bytes_received": trail.bytes_received or len(request.body),
            "bytes_sent": trail.bytes_sent,
            "first_byte_at": trail.first_byte_at,
            "ended_at": ended_at,
            **used,
        }
    )
    _log(request, trail, ended_at, used)


def spending(request: ClientRequest, trail: Trail) -> dict[str, Any]:
    """Return what a request has used so far, and whose prices it has, by the record's columns."""
    return {
        "account": trail.account,
        "provider": PASSED_THROUGH if trail.passes_through else "",
        "model": request.model,
        "started_at": trail.started_at,
        **spent.read(trail.usage, trail.model).as_row(),
    }


def _log(request: ClientRequest, trail: Trail, ended_at: float, used: dict[str, Any]) -> None:
    level = logging.INFO if trail.ended is Ended.COMPLETE else logging.WARNING
    if not log.isEnabledFor(level):
        return
    told = {
        "request_id": request.id,
        "key_id": request.key.id,
        "session": request.session,
        "account_id": trail.account,
        "upstream_id": trail.upstream_id,
        "endpoint": request.endpoint,
        "model": request.model,
        "answered_by": used["answered_by"],
        "stream": request.stream,
        "status": trail.status,
        "ended": trail.ended.value,
        "verdicts": [attempt.row for attempt in trail.attempts],
        "attempts": len(trail.attempts),
        "first_byte_ms": _ms(trail.started_at, trail.first_byte_at),
        "duration_ms": _ms(trail.started_at, ended_at),
        "bytes_received": trail.bytes_received or len(request.body),
        "bytes_sent": trail.bytes_sent,
        **{name: used[name] for name in TOKENS},
    }
    # What nobody said is left out: most lines have no use for most of these.
    log.log(level, "serve request", extra={k: v for k, v in told.items() if v not in (None, "")})


def _ms(start: float, end: float | None) -> int | None:
    return None if end is None else round((end - start) * 1000)
