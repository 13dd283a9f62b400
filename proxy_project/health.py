"""`/health`: would a request be served now; answered at once, whatever hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import redis
from django.db import Error as DatabaseError

from accounts import pool
from lib.redis import for_requests
from relay import drain

PATH = b"/health"
PATIENCE = 1.0
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def answer(send: Send) -> None:
    """Answer 200, or 503 with the reason."""
    reason = await reason_to_worry()
    status = 503 if reason else 200
    body = orjson.dumps({"status": "unhealthy" if reason else "healthy", "reason": reason})
    headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def reason_to_worry() -> str:
    """Return why this process cannot serve, empty when it can; takes a second at most."""
    if drain.is_draining():
        return "draining"
    try:
        async with asyncio.timeout(PATIENCE):
            await pool.snapshot.get()
    except (DatabaseError, TimeoutError):
        return "the database does not answer"
    try:
        async with asyncio.timeout(PATIENCE):
            await for_requests().ping()
    except (redis.RedisError, OSError, TimeoutError):
        return "Redis does not answer"
    return ""
