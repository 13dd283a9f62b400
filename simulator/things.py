"""What an organisation has made and can list: newest first, in pages of either shape."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from .call import Call, authenticate
from .errors import ApiError
from .messages import INFERENCE, check_version
from .state import World

# From this version of the API on, lists of files are continued by an opaque cursor.
CURSORS_SINCE = "2026"
CURSOR = "page_"
DEFAULT_LIMIT = 20


class Thing(Protocol):
    """A thing with an owner."""

    id: str
    organization: str


T = TypeVar("T", bound=Thing)


def owner_of(world: World, call: Call) -> str:
    """Return the organisation that calls; raise the API's refusals."""
    payer = authenticate(world, call, INFERENCE)
    check_version(call)
    return payer.organization_uuid


def find(things: Mapping[str, T], organization: str, thing_id: str) -> T:
    """Return the thing of that id; raise a 404 when it is another organisation's or nobody's."""
    thing = things.get(thing_id)
    if thing is None or thing.organization != organization:
        raise ApiError(404, f"Not found: {thing_id}")
    return thing


def page(
    call: Call, things: Mapping[str, T], organization: str, show: Callable[[T], dict[str, Any]]
) -> dict[str, Any]:
    """Return one page of the organisation's things."""
    own = [thing for thing in reversed(list(things.values())) if thing.organization == organization]
    if wanted := {value for name, value in call.pairs if name in ("ids", "ids[]")}:
        return {"data": [show(thing) for thing in own if thing.id in wanted], "next_page": None}
    limit = call.query.get("limit", str(DEFAULT_LIMIT))
    if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
        raise ApiError(400, "limit: Input should be between 1 and 1000")
    ids = [thing.id for thing in own]
    cursor = call.query.get("page", "").removeprefix(CURSOR)
    after, before = call.query.get("after_id") or cursor, call.query.get("before_id")
    if before in ids:
        start = max(0, ids.index(before) - int(limit))
        own = own[start : ids.index(before)]
        has_more = start > 0
    else:
        own = own[ids.index(after) + 1 :] if after in ids else own
        has_more = len(own) > int(limit)
        own = own[: int(limit)]
    data = [show(thing) for thing in own]
    if call.path == "/v1/files" and call.headers["anthropic-version"] >= CURSORS_SINCE:
        return {"data": data, "next_page": CURSOR + own[-1].id if has_more else None}
    first, last = (own[0].id, own[-1].id) if own else (None, None)
    return {"data": data, "has_more": has_more, "first_id": first, "last_id": last}


def timestamp(epoch: float) -> str:
    """Return a time as the API writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
