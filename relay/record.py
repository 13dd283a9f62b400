"""What is kept of a request when it is over: one row for the database, one line for the log."""

from __future__ import annotations

import logging
import time

from relay import spent
from relay.request import ClientRequest
from relay.trail import Ended, Trail
from usage import recorder

log = logging.getLogger(__name__)


def record(request: ClientRequest, trail: Trail) -> None:
    """Keep what became of a request; nothing of prompt, answer, key or token is in it."""
    recorder.append(
        {
            "request_id": request.id,
            "key": request.key.id,
            "account": trail.account,
            "session": request.session or "",
            "endpoint": request.endpoint,
            "model": request.model,
            "stream": request.stream,
            "status": trail.status,
            "ended": trail.ended,
            "attempts": len(trail.attempts),
            "trail": trail.as_json(),
            "possible_double_spend": trail.may_be_billed_twice,
            "verdict": trail.attempts[-1].row if trail.attempts else "",
            "is_partial": trail.is_partial,
            "bytes_received": trail.bytes_received or len(request.body),
            "bytes_sent": trail.bytes_sent,
            "started_at": trail.started_at,
            "first_byte_at": trail.first_byte_at,
            "ended_at": time.time(),
            **spent.read(trail.usage, trail.model).as_row(),
        }
    )
    level = logging.WARNING if trail.ended is not Ended.COMPLETE else logging.INFO
    log.log(
        level,
        "relay %s: %s %d %s, key %d, account %s, attempts %s",
        request.id,
        request.endpoint,
        trail.status,
        trail.ended,
        request.key.id,
        trail.account,
        ",".join(attempt.row for attempt in trail.attempts) or "none",
    )
