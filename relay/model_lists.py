"""Which models each account has: asked now and then, and kept in the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

import orjson
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import transaction
from django.utils import timezone

from accounts import pool
from accounts.models import POOL
from accounts.pool import Member
from accounts.states import Status, is_ahead
from lib import bus, db
from lib.http import USER_AGENT
from lib.redis import for_jobs
from relay import destination
from relay.headers import VERSION
from relay.models import ModelList
from relay.upstream import aiohttp
from relay.upstream.base import Failure, Response

CHANGED = "models"
Model = dict[str, Any]

OLD = timedelta(minutes=10)
# Old enough to be asked for again before a model is called unknown.
YOUNG = timedelta(minutes=1)
SECONDS, AT_ONCE, MOST_PAGES, LARGEST = 10.0, 8, 5, 4 * 1024 * 1024
# After a try that found nothing, requests cause another one only so much later, or when the pool
# has changed.
PAUSE_SECONDS = 10.0
SLOT_SECONDS = 60
LAST_SECOND = 4_102_444_800
USABLE = frozenset({Status.ACTIVE, Status.RATE_LIMITED})
HEADERS = [
    VERSION,
    ("accept", "application/json"),
    ("accept-encoding", "identity"),
    ("user-agent", USER_AGENT),
]
log = logging.getLogger(__name__)

Try = tuple[asyncio.Task[int], float, object]
_tries: WeakKeyDictionary[asyncio.AbstractEventLoop, Try] = WeakKeyDictionary()
# Why an account's list could not be read, as it was logged last.
_told: dict[int, str] = {}
# Another object after every change of the pool.
_pool = object()


class NotAList(Exception):
    """What an account answered is no list of models."""


async def refresh(now: datetime | None = None, *, age: timedelta = OLD) -> int:
    """Ask every account whose list is older than `age` or missing; return how many answered.

    An account that does not answer keeps the list it has. Its token is not renewed for this: the
    job that does so is never far behind.
    """
    now = now or timezone.now()
    members = await db.in_thread(_due, now - age, now)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(member: Member) -> bool:
        async with gate:
            return await _refresh(member)

    return sum(await asyncio.gather(*(one(member) for member in members)))


def claim(now: datetime | None = None) -> bool:
    """Claim the job of this minute; of two beats only one asks. Blocking."""
    slot = int((now or timezone.now()).timestamp() // SLOT_SECONDS)
    with contextlib.closing(for_jobs()) as client:
        return bool(client.set(f"models:slot:{slot}", 1, nx=True, ex=2 * SLOT_SECONDS))


def begin(*, age: timedelta = OLD) -> asyncio.Task[int]:
    """Return the refresh that runs behind this loop's requests, or has just been tried."""
    loop = asyncio.get_running_loop()
    now = time.monotonic()
    task, at, seen = _tries.get(loop, (None, now, _pool))
    is_old = now - at > PAUSE_SECONDS or seen is not _pool
    if task is None or (task.done() and is_old):
        task = loop.create_task(refresh(age=age))
        task.add_done_callback(_note)
        _tries[loop] = (task, now, _pool)
    return task


async def stop() -> None:
    """End what `begin` has begun (at the end of a loop)."""
    _told.clear()
    if tried := _tries.pop(asyncio.get_running_loop(), None):
        tried[0].cancel()
        await asyncio.gather(tried[0], return_exceptions=True)


def _pool_changed() -> None:
    global _pool
    _pool = object()


bus.on(POOL, _pool_changed)


def _due(since: datetime, now: datetime) -> list[Member]:
    fresh = ModelList.objects.filter(fetched_at__gt=since)
    known = set(fresh.values_list("account_id", flat=True))
    return [
        member
        for member in pool.load().members
        if member.id not in known
        and member.status in USABLE
        and (member.expires_at is None or is_ahead(member.expires_at, now))
    ]


async def _refresh(member: Member) -> bool:
    try:
        async with asyncio.timeout(SECONDS):
            models = await _fetch(member)
        await db.in_thread(_store, member.id, models)
    except (Failure, NotAList, TimeoutError, DatabaseError) as error:
        reason = str(error) if isinstance(error, NotAList) else type(error).__name__
        # Many compatible endpoints have no list at all, and that is said once.
        is_old_news = member.endpoint is not None and _told.get(member.id) == reason
        level = logging.DEBUG if is_old_news else logging.WARNING
        log.log(level, "list models of account:%d: %s", member.id, reason)
        _told[member.id] = reason
        return False
    _told.pop(member.id, None)
    return True


async def _fetch(member: Member) -> list[Model]:
    provider = member.provider
    models: list[Model] = []
    after = ""
    for _ in range(MOST_PAGES):
        target = f"/v1/models?limit=1000{after}"
        url = destination.url(member, target, settings.CONFIG.upstream_base_url)
        sent = provider.authenticate(HEADERS, member.secret)
        way = destination.route(member)
        response = await aiohttp.client().send("GET", url, sent, b"", route=way)
        try:
            page = _listed(response.status, await _read(response))
        finally:
            response.close()
        models += [_as_ours(model) for model in page["data"] if _is_model(model)]
        if not page.get("has_more") or not isinstance(page.get("last_id"), str):
            break
        after = "&" + urlencode({"after_id": page["last_id"]})
    return models


async def _read(response: Response) -> bytes:
    body = b""
    while piece := await response.read():
        body += piece
        if len(body) > LARGEST:
            raise NotAList("too large")
    return body


def _listed(status: int, body: bytes) -> dict[str, Any]:
    if status != 200:
        raise NotAList(f"status {status}")
    try:
        page = orjson.loads(body)
        # What can be read, but is too deep to be written, would end every answer it is merged into.
        orjson.dumps(page)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        raise NotAList("not JSON") from None
    if not isinstance(page, dict) or not isinstance(page.get("data"), list):
        raise NotAList("no data")
    return page


def _is_model(model: object) -> bool:
    return isinstance(model, dict) and isinstance(model.get("id"), str)


def _as_ours(model: Model) -> Model:
    """Return a model as Anthropic's list shows it; others call it an `object` and count seconds."""
    if "type" in model or "object" not in model:
        return model
    ours: Model = {"type": "model", "id": model["id"], "display_name": model["id"]}
    created = model.get("created")
    if isinstance(created, int) and 0 < created < LAST_SECOND:
        ours["created_at"] = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return ours


def _store(account: int, models: list[Model]) -> None:
    with transaction.atomic():
        given = {"data": models, "fetched_at": timezone.now()}
        ModelList.objects.update_or_create(account_id=account, defaults=given)
        bus.changed(CHANGED)


def _note(task: asyncio.Task[int]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.warning("list models: %s", type(error).__name__)
