"""`/health` and what lies under it: how this process stands; answered soon, whatever hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import orjson
import redis
from django.db import Error as DatabaseError
from django.db import connection
from django.utils import timezone

from accounts import pool, watching
from lib import db
from lib.redis import for_requests
from proxy_project.insiders import is_insider
from relay import drain, prospect
from relay.errors import RelayError
from relay.request import LONGEST_MODEL

PATIENCE = 1.0
DATABASE, REDIS = "the database does not answer", "Redis does not answer"
Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_asking: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What is answered: 200 or 503 and a JSON object."""

    ok: bool
    body: dict[str, Any]
    retry_after: int | None = field(default=None)


async def answer(scope: Scope, send: Send) -> None:
    """Answer GET and HEAD of one of PATHS; nobody may keep the answer."""
    if scope["method"] not in ("GET", "HEAD"):
        await _send(send, 405, {"status": "method not allowed"}, [(b"allow", b"GET, HEAD")])
        return
    told = await PATHS[scope["raw_path"]](scope)
    more = [] if told.retry_after is None else [(b"retry-after", b"%d" % told.retry_after)]
    status = 200 if told.ok else 503
    await _send(send, status, told.body, more, with_body=scope["method"] == "GET")


async def whole(_: Scope) -> Told:
    """Tell whether this process can serve, and why not."""
    reason = await reason_to_worry()
    return Told(not reason, {"status": "unhealthy" if reason else "healthy", "reason": reason})


async def liveness(_: Scope) -> Told:
    """Tell that the process answers; also while it drains, which is no reason to kill it."""
    return Told(True, {"status": "alive"})


async def readiness(_: Scope) -> Told:
    """Tell whether requests should be sent here: database, Redis, an account that is usable."""
    if drain.is_draining():
        return Told(False, {"status": "unready", "reason": "draining", "checks": {}})
    checks = {"database": _database, "redis": _redis, "accounts": _accounts}
    reasons = await asyncio.gather(*(check() for check in checks.values()))
    return Told(
        not any(reasons),
        {
            "status": "unready" if any(reasons) else "ready",
            "reason": next(filter(None, reasons), ""),
            "checks": dict(zip(checks, (reason or "ok" for reason in reasons), strict=True)),
        },
    )


async def claude_code(scope: Scope) -> Told:
    """Tell whether a request of Claude Code would be served now; insiders see each account."""
    model = parse_qs(scope["query_string"].decode("latin-1")).get("model", [""])[0]
    try:
        async with asyncio.timeout(PATIENCE):
            found = await prospect.look(prospect.claude_code(model[:LONGEST_MODEL]))
    except (DatabaseError, TimeoutError):
        return Told(False, {"status": "would fail", "code": "database", "reason": DATABASE})
    refusal = found.refusal
    body: dict[str, Any] = {"status": "would fail" if refusal else "would succeed"}
    if refusal:
        # The names of the models that there are instead are no business of strangers.
        reason = str(refusal) if refusal.code != "not_found" else "no account has this model"
        body |= {"code": refusal.code, "reason": reason, "http_status": refusal.status}
    if await is_insider(scope):
        body["accounts"] = [
            {
                "id": member.id,
                "name": member.name,
                "kind": member.kind.value,
                "usable": member.id not in found.skipped,
                "why": found.skipped.get(member.id, ""),
            }
            for member in found.pool.members
        ]
    return Told(refusal is None, body, _retry_after(refusal))


Answer = Callable[[Scope], Awaitable[Told]]
PATHS: dict[bytes, Answer] = {
    b"/health": whole,
    b"/health/liveness": liveness,
    b"/health/readiness": readiness,
    b"/health/claude-code": claude_code,
}


async def reason_to_worry() -> str:
    """Return why this process cannot serve, empty when it can; takes two seconds at most."""
    if drain.is_draining():
        return "draining"
    try:
        async with asyncio.timeout(PATIENCE):
            await pool.snapshot.get()
    except (DatabaseError, TimeoutError):
        return DATABASE
    return await _redis()


async def _database() -> str:
    """Ask the database itself; one question at a time, however many ask while it hangs."""
    global _asking
    loop = asyncio.get_running_loop()
    if _asking is None or _asking.done() or _asking.get_loop() is not loop:
        _asking = loop.create_task(db.in_thread(_select))
        # Else one that fails after everybody has left would be complained about.
        _asking.add_done_callback(lambda task: task.cancelled() or task.exception())
    done, _ = await asyncio.wait({_asking}, timeout=PATIENCE)
    return "" if done and _asking.exception() is None else DATABASE


def _select() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM django_migrations LIMIT 1")


async def _redis() -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            await for_requests().ping()
    except (redis.RedisError, OSError, TimeoutError):
        return REDIS
    return ""


async def _accounts() -> str:
    now = timezone.now()
    try:
        async with asyncio.timeout(PATIENCE):
            view = await pool.snapshot.get()
    except (DatabaseError, TimeoutError):
        return "unknown, as the database does not answer"
    if any(watching.serves(member, now) for member in view.members):
        return ""
    return "no account can serve now" if view.members else "no account is linked"


def _retry_after(refusal: RelayError | None) -> int | None:
    return refusal.retry_after if refusal else None


async def _send(
    send: Send,
    status: int,
    told: dict[str, Any],
    more: list[tuple[bytes, bytes]],
    *,
    with_body: bool = True,
) -> None:
    body = orjson.dumps(told)
    headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"content-length", b"%d" % len(body)),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body if with_body else b""})
