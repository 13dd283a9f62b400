"""Rows as the data plane writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

AT = datetime(2026, 11, 20, 12, 0, 1, tzinfo=UTC)


def row(
    name: str, *, after: float = 0.0, first: float | None = 0.5, **given: Any
) -> dict[str, Any]:
    """Return the row of a request that began `after` seconds after AT and took a second more."""
    began = AT.timestamp() + after
    return {
        "request_id": name,
        "key": None,
        "account": None,
        "session": "",
        "endpoint": "/v1/messages",
        "model": "claude-opus-5",
        "answered_by": "",
        "stream": True,
        "status": 200,
        "ended": "complete",
        "attempts": 1,
        "started_at": began,
        "first_byte_at": None if first is None else began + first,
        "ended_at": began + 1 + (first or 0),
    } | given
