"""Batches and files: made by one account, kept there, and seen by the key that made them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import msgspec
from django.db import Error as DatabaseError

from accounts import pool
from accounts.pool import Member
from accounts.states import Status
from lib import db
from lib.snapshot import FRESH
from relay import choice, direct, ownership, renewing
from relay.addresses import with_own_results
from relay.answer import Answer
from relay.call import Call
from relay.endpoints import BATCH, Kind, Thing
from relay.errors import NotFound, Orphaned, PoolLimited, PoolUnavailable, UpstreamProtocol
from relay.trail import Attempt, Trail

P = ParamSpec("P")
T = TypeVar("T")
DATABASE_SECONDS = 5.0
# A limit on messages says nothing of what an account keeps.
ASKABLE = frozenset({Status.ACTIVE, Status.RATE_LIMITED})
log = logging.getLogger(__name__)

_bindings: set[asyncio.Future[None]] = set()


class _Made(msgspec.Struct):
    id: str


_made = msgspec.json.Decoder(_Made)


async def create(call: Call, trail: Trail) -> Answer:
    """Let one account make a thing and bind it to the key before the client learns of it."""
    assert call.upload is not None
    member = await choice.with_token(call.request, trail)
    try:
        answer = await direct.ask(call.request, member, trail, upload=call.upload)
    except PoolLimited:
        raise await choice.refused(call.request) from None
    if not _is_success(answer):
        return answer
    try:
        await _bind(call, member, answer)
    except BaseException:
        answer.close()
        raise
    return _rewritten(answer, call)


async def use(call: Call, trail: Trail) -> Answer:
    """Ask the account that keeps a thing; raise NotFound when the key has no such thing."""
    thing, key = _thing(call), call.request.key.id
    account = await in_time(ownership.account_of, thing.kind, call.endpoint.id, key)
    if account is None:
        raise NotFound(f"Not found: {call.endpoint.id}")
    member = await _keeper(account, trail)
    kind = call.endpoint.kind
    answer = await direct.ask(call.request, member, trail, is_raw=kind is Kind.CONTENT)
    try:
        if kind is Kind.DELETE and (_is_success(answer) or answer.status == 404):
            await _forget(thing, call.endpoint.id, key)
    except BaseException:
        answer.close()
        raise
    return answer if kind is Kind.CONTENT else _rewritten(answer, call)


def can_be_asked(member: Member) -> bool:
    """Tell whether an account may be asked for what it keeps."""
    return member.status in ASKABLE


async def in_time(verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what the database says, soon or not at all; raise PoolUnavailable or RelayError."""
    try:
        async with asyncio.timeout(DATABASE_SECONDS):
            return await db.in_thread(verb, *args, **kwargs)
    except TimeoutError:
        raise PoolUnavailable from None


async def settled() -> None:
    """Wait for the bindings of this loop that are still being written."""
    loop = asyncio.get_running_loop()
    if ours := [binding for binding in _bindings if binding.get_loop() is loop]:
        await asyncio.wait(ours)


async def _keeper(account: int, trail: Trail) -> Member:
    member = (await pool.snapshot.get()).member(account)
    if member is None or not can_be_asked(member):
        member = (await pool.snapshot.get(max_age=FRESH)).member(account)
    if member is None or not can_be_asked(member):
        raise PoolUnavailable
    live = await renewing.with_live_token(member)
    if live is None:
        trail.attempts.append(Attempt(member.id, "D03"))
        raise PoolUnavailable
    return live


async def _bind(call: Call, member: Member, answer: Answer) -> None:
    thing, key = _thing(call), call.request.key.id
    try:
        made = _made.decode(answer.head).id
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        log.error("bind %s: account:%d answered without an id", thing.kind, member.id)
        raise UpstreamProtocol from None
    binding = asyncio.ensure_future(db.in_thread(ownership.bind, thing.kind, made, member.id, key))
    _bindings.add(binding)
    binding.add_done_callback(_bindings.discard)
    # It goes on when the client hangs up now: the thing is made.
    done, _ = await asyncio.wait({binding}, timeout=DATABASE_SECONDS)
    if not done:
        log.error("bind %s %s of account:%d: still waiting", thing.kind, made, member.id)
        raise Orphaned
    if error := binding.exception():
        reason = type(error).__name__
        log.error("bind %s %s of account:%d: %s; orphaned", thing.kind, made, member.id, reason)
        raise Orphaned


async def _forget(thing: Thing, thing_id: str, key: int) -> None:
    try:
        await in_time(ownership.forget, thing.kind, thing_id, key)
    except (DatabaseError, PoolUnavailable) as error:
        # It is gone all the same; asked for again, the upstream says so.
        log.warning("forget %s %s: %s", thing.kind, thing_id, type(error).__name__)


def _rewritten(answer: Answer, call: Call) -> Answer:
    if call.endpoint.thing is BATCH and _is_success(answer) and answer.ended:
        answer.head = with_own_results(answer.head, call.base)
    return answer


def _is_success(answer: Answer) -> bool:
    return 200 <= answer.status < 300


def _thing(call: Call) -> Thing:
    assert call.endpoint.thing is not None
    return call.endpoint.thing
