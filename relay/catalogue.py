"""The models of all accounts together, served from what is stored, whatever the upstream does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson

from accounts import pool
from accounts.models import POOL, Account
from lib import bus
from lib.snapshot import Snapshot
from relay import local, model_lists, routing
from relay.answer import Answer
from relay.call import Call
from relay.capabilities import offers
from relay.errors import BadRequest, NotFound, PoolUnavailable
from relay.model_lists import CHANGED, Model
from relay.models import ModelList
from relay.request import ClientRequest
from relay.trail import Trail
from sessions_limit import patterns

DEFAULT_LIMIT, LARGEST_LIMIT = 20, 1000
DIGITS = re.compile(r"[0-9]{1,9}")
# The client that asks first of all may wait this long; Claude Code gives up after three seconds.
FIRST_SECONDS = 2.5
FOREVER = float("inf")


def merge(lists: Iterable[list[Model]]) -> dict[str, Model]:
    """Return all models by id, newest first; of the same age in the order they are listed in."""
    models: dict[str, Model] = {}
    for listed in lists:
        for model in listed:
            models.setdefault(model["id"], model)
    return {model["id"]: model for model in sorted(models.values(), key=_age, reverse=True)}


def load() -> dict[str, Model]:
    """Read the merged catalogue from the database."""
    rows = ModelList.objects.filter(account__deleted_at=None).order_by("account_id")
    maps = Account.objects.filter(deleted_at=None).exclude(model_map={})
    named = dict(maps.values_list("id", "model_map"))
    listed = {row.account_id: row.data for row in rows}
    accounts = sorted(listed.keys() | named.keys())
    return merge(offered(listed.get(pk, []), named.get(pk, {})) for pk in accounts)


def offered(listed: list[Model], model_map: Mapping[str, str]) -> list[Model]:
    """Return the models of one account under the names by which clients ask for them.

    A model that the account's map gives a name of its own is offered by that name alone; a pattern
    with a star names none.
    """
    names = {ours: theirs for ours, theirs in model_map.items() if "*" not in ours}
    theirs = {model["id"]: model for model in listed}
    hidden = names.keys() | names.values()
    mapped = [
        theirs.get(there, {"type": "model"}) | {"id": ours, "display_name": ours}
        for ours, there in names.items()
    ]
    return [*(model for model in listed if model["id"] not in hidden), *mapped]


snapshot: Snapshot[dict[str, Model]] = Snapshot(load, topic=CHANGED)
# Names come from the accounts' maps too.
bus.on(POOL, snapshot.invalidate)


async def open_list(call: Call, trail: Trail) -> Answer:
    """Return a page of the catalogue; raise PoolUnavailable if there never was one."""
    query = dict(parse_qsl(call.request.target.partition("?")[2]))
    models = list((await _catalogue(call.request)).values())
    return local.json(orjson.dumps(_page(models, query)))


async def open_one(call: Call, trail: Trail) -> Answer:
    """Return one model; raise NotFound."""
    model = (await _catalogue(call.request)).get(call.endpoint.id)
    if model is None:
        raise NotFound(f"model: {call.endpoint.id}")
    return local.json(orjson.dumps(model))


async def _catalogue(request: ClientRequest) -> dict[str, Model]:
    models = await snapshot.get(max_age=FOREVER)
    if not models:
        await asyncio.wait({model_lists.begin()}, timeout=FIRST_SECONDS)
        models = await snapshot.get()
    if not models:
        raise PoolUnavailable("The models of this relay's accounts are not known yet.")
    key = request.key
    if key.models:
        models = {id: model for id, model in models.items() if patterns.allows(key.models, id)}
    is_bound = key.labels or key.account is not None
    return await _of_group(models, request) if is_bound else models


async def _of_group(models: dict[str, Model], request: ClientRequest) -> dict[str, Model]:
    """Return the models of the accounts that may serve this key."""
    members = (await pool.snapshot.get()).members
    await offers.follow()
    group = [member for member in members if routing.is_open_to(member, request)]
    return {id: m for id, m in models.items() if any(offers.has(member, id) for member in group)}


def _page(models: list[Model], query: dict[str, str]) -> dict[str, Any]:
    ids = [model["id"] for model in models]
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if not (DIGITS.fullmatch(limit) and 1 <= int(limit) <= LARGEST_LIMIT):
        raise BadRequest(f"limit: Input should be between 1 and {LARGEST_LIMIT}")
    size = int(limit)
    for name in ("after_id", "before_id"):
        if name in query and query[name] not in ids:
            raise BadRequest(f"{name}: no such model")
    if "before_id" in query:
        end = ids.index(query["before_id"])
        start = max(0, end - size)
        page, has_more = models[start:end], start > 0
    else:
        start = ids.index(query["after_id"]) + 1 if "after_id" in query else 0
        page, has_more = models[start : start + size], len(models) > start + size
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {"data": page, "has_more": has_more, "first_id": first, "last_id": last}


def _age(model: Model) -> str:
    created = model.get("created_at")
    return created if isinstance(created, str) else ""
