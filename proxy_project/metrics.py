"""`/metrics`: what all processes counted and how everything stands, for Prometheus."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import redis
from django.conf import settings
from django.db import Error as DatabaseError
from django.utils import timezone
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric

import accounts.prometheus
import events.prometheus
import relay.prometheus
import sessions_limit.prometheus
import usage.prometheus
from lib import counters, db, heartbeat
from lib.counters import Reading
from lib.exposition import Table, gauge, render
from proxy_project import queues
from proxy_project.insiders import is_from_here
from proxy_project.queues import Queues

PATH = b"/metrics"
METRICS: Table = (
    *usage.prometheus.METRICS,
    *relay.prometheus.METRICS,
    *sessions_limit.prometheus.METRICS,
    *accounts.prometheus.METRICS,
    *events.prometheus.METRICS,
)
PATIENCE = 3.0
log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_asking: asyncio.Task[list[Metric]] | None = None


async def answer(scope: Scope, send: Send) -> None:
    """Answer a scrape; 401 or 404 for whom it is not, 503 while Redis is away."""
    status = refusal(scope)
    body = b""
    if not status:
        try:
            body, status = await _text(), 200
        except (redis.RedisError, OSError) as error:
            log.warning("tell metrics: %s", type(error).__name__)
            status = 503
    headers = [
        (b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode()),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="metrics"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def refusal(scope: Scope) -> int:
    """Return the status to refuse a request with, 0 if it may see the metrics.

    With METRICS_TOKEN whoever has it may, from anywhere; without one, who is on this machine.
    """
    if token := settings.CONFIG.metrics_token.get_secret_value():
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        wanted = f"Bearer {token}".encode()
        # Of two it would be unclear which one counts.
        is_right = len(given) == 1 and hmac.compare_digest(given[0], wanted)
        if not is_right:
            return 401
    elif not is_from_here(scope):
        return 404
    return 0 if scope["method"] in ("GET", "HEAD") else 405


async def _text() -> bytes:
    await asyncio.to_thread(counters.deltas.push)
    read, waiting = await counters.read(usage.prometheus.SESSIONS), await queues.read()
    living = await sessions_limit.prometheus.read()
    stored = await _stored()
    # Off the event loop: it takes some milliseconds.
    return await asyncio.to_thread(_render, read, waiting, living, stored)


def _render(read: Reading, waiting: Queues, living: int, stored: list[Metric]) -> bytes:
    return render(
        [
            *(metric.family(read.counters) for metric in METRICS),
            *usage.prometheus.gauges(read.seen),
            *relay.prometheus.gauges(read.processes),
            *sessions_limit.prometheus.gauges(read.processes, living),
            *queues.gauges(waiting),
            *_processes(read),
            *_heartbeats(),
            *stored,
            gauge("database_up", "Whether the database answers.", {(): float(bool(stored))}),
        ]
    )


def _processes(read: Reading) -> Iterator[Metric]:
    roles: dict[tuple[str, ...], float] = {}
    for told in read.processes:
        role = told.get("role", "")
        if role != counters.COMMAND:
            roles[role,] = roles.get((role,), 0) + 1
    yield gauge("processes", "Processes that count and live.", roles, ("role",))


def _heartbeats() -> Iterator[Metric]:
    now = time.time()
    ages: dict[tuple[str, ...], float] = {}
    for sign in heartbeat.living(now):
        ages[sign.name,] = min(max(0.0, now - sign.at), ages.get((sign.name,), float("inf")))
    help = "Seconds since the last sign of life; a minute later there is none."
    yield gauge("heartbeat_age_seconds", help, ages, ("process",))


async def _stored() -> list[Metric]:
    """Return what the database knows; nothing, not zeros, while it is away.

    One question at a time: one that hangs must not take the data plane's threads, scrape by scrape.
    """
    global _asking
    loop = asyncio.get_running_loop()
    if _asking is None or _asking.done() or _asking.get_loop() is not loop:
        _asking = loop.create_task(db.in_thread(_read_stored))
    asked = _asking
    await asyncio.wait({asked}, timeout=PATIENCE)
    return asked.result() if asked.done() else []


def _read_stored() -> list[Metric]:
    now = timezone.now()
    try:
        return [*accounts.prometheus.gauges(now), *events.prometheus.gauges(now)]
    except DatabaseError as error:
        log.warning("tell metrics: %s", type(error).__name__)
        return []
