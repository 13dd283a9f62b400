"""Lists of batches and files: the key's own things, wherever they are kept, newest first."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode

import msgspec
import orjson

from accounts import pool
from accounts.pool import Member
from relay import direct, local, ownership, renewing
from relay.addresses import with_own_results
from relay.answer import Answer
from relay.call import Call
from relay.endpoints import BATCH, FILE
from relay.errors import BadRequest, PoolUnavailable, RelayError
from relay.ownership import Owned, Page
from relay.resources import can_be_asked, in_time
from relay.trail import Trail

DEFAULT_LIMIT, LARGEST_LIMIT, MOST_IDS = 20, 1000, 100
CURSOR = "page_"
DIGITS = re.compile(r"[0-9]{1,9}")
OURS = frozenset({"limit", "page", "after_id", "before_id", "ids", "ids[]"})
# What one account is asked for at a time, how often, and how long that may take.
UPSTREAM_LIMIT, UPSTREAM_PAGES, SECONDS = 500, 20, 10.0
AT_ONCE = 4
CLIENT_FAULTS = (400, 422)
UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
log = logging.getLogger(__name__)

Pairs = list[tuple[str, str]]
Found = dict[str, bytes]


class _Listed(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool = False
    last_id: str | None = None
    next_page: str | None = None


class _Named(msgspec.Struct):
    id: str


class _Error(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Error


_refusal = msgspec.json.Decoder(_Refusal)
_listed = msgspec.json.Decoder(_Listed)
_named = msgspec.json.Decoder(_Named)


async def open(call: Call, trail: Trail) -> Answer:
    """Return a page of what the key may see.

    Which things those are is known here; the accounts that keep them are asked for the objects. An
    account that cannot be asked is left out; raise its RelayError when nothing at all was found.
    """
    thing = call.endpoint.thing
    assert thing is not None
    pairs = parse_qsl(call.request.target.partition("?")[2], keep_blank_values=True)
    page = _page(pairs)
    members = {m.id: m for m in (await pool.snapshot.get()).members if can_be_asked(m)}
    key = call.request.key.id
    owned, has_more = await in_time(ownership.listed, thing.kind, key, page, list(members))
    if not owned and (await in_time(ownership.listed, thing.kind, key, page))[0]:
        raise PoolUnavailable
    passed_on = [(name, value) for name, value in pairs if name not in OURS]
    gate = asyncio.Semaphore(AT_ONCE)
    walks = [
        _of_account(
            call, trail, member, {o.id for o in owned if o.account == member.id}, passed_on, gate
        )
        for member in members.values()
        if any(o.account == member.id for o in owned)
    ]
    found: Found = {}
    failed: list[RelayError] = []
    for part in await asyncio.gather(*walks):
        if isinstance(part, RelayError):
            failed.append(part)
        else:
            found |= part
    if failed and not found:
        raise failed[0]
    return local.json(_body(call, owned, has_more, found))


async def _of_account(
    call: Call,
    trail: Trail,
    member: Member,
    wanted: set[str],
    pairs: Pairs,
    gate: asyncio.Semaphore,
) -> Found | RelayError:
    """Return those of the wanted things that an account lists, or why it cannot be asked."""
    try:
        async with gate, asyncio.timeout(SECONDS):
            live = await renewing.with_live_token(member)
            if live is None:
                raise PoolUnavailable
            return await _walk(call, trail, live, wanted, pairs)
    except (TimeoutError, *UNREADABLE):
        failure: RelayError = PoolUnavailable()
    except RelayError as error:
        failure = error
    log.warning("list %s of account:%d: %s", call.endpoint.name, member.id, failure.code)
    return failure


async def _walk(call: Call, trail: Trail, member: Member, wanted: set[str], pairs: Pairs) -> Found:
    found: Found = {}
    cursor: Pairs = []
    for _ in range(UPSTREAM_PAGES):
        query = urlencode([*pairs, ("limit", str(UPSTREAM_LIMIT)), *cursor])
        target = f"{call.request.target.partition('?')[0]}?{query}"
        answer = await direct.ask(replace(call.request, target=target), member, trail)
        listed = _read(answer)
        for raw in listed.data:
            name = _named.decode(raw).id
            if name in wanted:
                found[name] = bytes(raw)
        if listed.next_page:
            cursor = [("page", listed.next_page)]
        elif listed.has_more and listed.last_id:
            cursor = [("after_id", listed.last_id)]
        else:
            break
        if len(found) == len(wanted):
            break
    return found


def _read(answer: Answer) -> _Listed:
    try:
        if answer.status in CLIENT_FAULTS:
            raise BadRequest(_refusal.decode(answer.head).error.message)
        if answer.status != 200 or not answer.ended:
            raise PoolUnavailable
        return _listed.decode(answer.head)
    finally:
        answer.close()


def _page(pairs: Pairs) -> Page:
    query = dict(pairs)
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if not (DIGITS.fullmatch(limit) and 1 <= int(limit) <= LARGEST_LIMIT):
        raise BadRequest(f"limit: Input should be between 1 and {LARGEST_LIMIT}")
    ids = frozenset(value for name, value in pairs if name in ("ids", "ids[]"))
    if len(ids) > MOST_IDS:
        raise BadRequest(f"ids: at most {MOST_IDS} of them")
    after = query.get("after_id") or query.get("page", "").removeprefix(CURSOR)
    before = query.get("before_id", "")
    if after and before:
        raise BadRequest("after_id and before_id cannot be given together")
    if any("\0" in value for value in (after, before, *ids)):
        raise BadRequest("an id holds no NUL")
    return Page(int(limit), after, before, ids)


def _body(call: Call, owned: Sequence[Owned], has_more: bool, found: Found) -> bytes:
    """Return the page with the objects as they came; a thing that nobody lists is left out.

    The cursors are those of the page, whatever was found: who follows them misses nothing.
    """
    data = [found[one.id] for one in owned if one.id in found]
    if call.endpoint.thing is BATCH:
        data = [with_own_results(batch, call.base) for batch in data]
    first, last = (owned[0].id, owned[-1].id) if owned else (None, None)
    rest: dict[str, object] = {"has_more": has_more, "first_id": first, "last_id": last}
    if call.endpoint.thing is FILE:
        # Clients of either version of the API find their own way to go on.
        rest["next_page"] = f"{CURSOR}{last}" if has_more else None
    return b'{"data":[' + b",".join(data) + b"]," + orjson.dumps(rest)[1:]
