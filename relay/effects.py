"""What a verdict does to the account: at once in this process, and in the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from accounts import health
from accounts.pool import Member
from lib import db
from providers.base import WHOLE_ACCOUNT
from relay.bench import UNTIL_KNOWN, bench
from relay.cooldowns import detours, limited_until
from relay.facts import Facts
from relay.signs import is_spent
from relay.verdicts import Effect, Row

UNRENEWED = timedelta(seconds=60)
# What these rows do leaves the account as a whole in the pool.
SPARING = frozenset({Effect.NONE, Effect.BUCKET, Effect.LACKS, Effect.PENALTY})
OPEN = frozenset({"allowed", "allowed_warning"})
PATIENCE = 1.0
PROBE_PATIENCE = 0.5
FIRST_PAUSE, LONGEST_PAUSE, KEEP_SECONDS = 0.5, 5.0, 60.0
log = logging.getLogger(__name__)

# What is being written, and since when.
_writes: dict[asyncio.Future[None], float] = {}


async def apply(row: Row, facts: Facts, member: Member, model: str) -> None:
    """Carry out what `row` says about the account of `member`; a dead database only delays it."""
    now = timezone.now()
    match row.effect:
        case Effect.LIMIT | Effect.BILLING | Effect.SPEND_CAP:
            until = limited_until(row, facts.limits, now)
            _hold(member, now)
            bench.foretell(member.id, until, now)
            windows = [w.name for w in facts.limits.windows if w.status == "rejected"]
            reason = f"{row.reason} ({', '.join(windows)})" if windows else row.reason
            evidence = {"row": row.id, "answer": str(facts.status)}
            await _write(health.limit, member.id, until, reason, observed_at=now, **evidence)
        case Effect.COOL_DOWN:
            until = limited_until(row, facts.limits, now)
            _hold(member, now)
            bench.foretell(member.id, until, now)
            await _write(health.cool_down, member.id, until, row.reason)
        case Effect.DETOUR:
            _hold(member, now)
            await _write(health.cool_down, member.id, detours.next(member.id, now), row.reason)
        case Effect.BUCKET if model:
            bench.hold(member.id, limited_until(row, facts.limits, now), model)
        case Effect.LACKS if model:
            bench.lacks(member.id, model, now)
        case Effect.PENALTY:
            bench.penalise(member.id, now)
        case Effect.INVALID:
            _hold(member, now)
            await _refuse(row, facts, member, whole_account=row.reason == "provider_disabled")
        case Effect.RENEW | Effect.NONE | Effect.BUCKET | Effect.LACKS:
            pass


async def reject_credential(row: Row, facts: Facts, member: Member) -> None:
    """Mark an account `invalid` whose credential was refused again after it was renewed."""
    _hold(member, timezone.now())
    await _refuse(row, facts, member, whole_account=False)


async def rest(member: Member, reason: str) -> None:
    """Keep an account out for a minute: its token is refused and could not be renewed now."""
    now = timezone.now()
    _hold(member, now)
    await _write(health.cool_down, member.id, now + UNRENEWED, reason)


def rest_alone(account: int, seconds: float, now: datetime) -> None:
    """Let this process leave an account alone that fails where others do not, and say so."""
    bench.hold(account, now + timedelta(seconds=seconds))
    _begin(health.rested, account, round(seconds, 1))


def leave(member: Member, until: datetime, reason: str, now: datetime) -> None:
    """Let an account leave the pool for its owner's sake; the answer that showed it goes on.

    No request tries whether it may return: it could serve, but is not to.
    """
    bench.leave(member.id, now + UNTIL_KNOWN)
    _begin(health.limit, member.id, until, reason, observed_at=now, probes=False)


async def claim_probe(member: Member, now: datetime) -> bool:
    """Claim the hour's probe of a spent account; a database that is away or slow grants none."""
    claiming = asyncio.ensure_future(db.in_thread(health.claim_probe, member.id, now=now))
    await asyncio.wait({claiming}, timeout=PROBE_PATIENCE)
    return claiming.done() and claiming.exception() is None and claiming.result()


def proves_open(row: Row, facts: Facts, member: Member) -> bool:
    """Tell whether a probe's answer proves its account's limit over (S05b).

    It was served, and not as paid extra usage beside a spent window; or it was refused for another
    reason, while its headers call both windows of the whole account open.
    """
    if row.id == "D37":
        return not is_spent(facts)
    windows = {window.name: window.status for window in facts.limits.windows}
    are_open = all(windows.get(name) in OPEN for name in WHOLE_ACCOUNT)
    return are_open and row.effect in SPARING and member.reason.startswith("limit_reached")


async def reopen(row: Row, member: Member) -> None:
    """Bring an account back whose probe proved its limit over."""
    await _write(health.reopen, member.id, limited_until=member.limited_until, row=row.id)


async def settled() -> None:
    """Wait for what is being written in this loop (before its process ends, and in tests)."""
    loop = asyncio.get_running_loop()
    if ours := [writing for writing in _writes if writing.get_loop() is loop]:
        await asyncio.wait(ours)


async def _refuse(row: Row, facts: Facts, member: Member, *, whole_account: bool) -> None:
    credential = None if whole_account else member.credential
    evidence = {"row": row.id, "answer": str(facts.status)}
    await _write(health.refuse, member.id, row.reason, credential=credential, **evidence)


def _hold(member: Member, now: datetime) -> None:
    bench.hold(member.id, now + UNTIL_KNOWN)


async def _write(verb: Callable[..., Any], account: int, *args: Any, **kwargs: Any) -> None:
    loop = asyncio.get_running_loop()
    writing = _begin(verb, account, *args, **kwargs)
    # It goes on when the client hangs up, or when the database takes longer than a client should;
    # one patience for all, as one request may have to bench many accounts.
    waited = loop.time() - min(at for other, at in _writes.items() if other.get_loop() is loop)
    await asyncio.wait({writing}, timeout=max(0.0, PATIENCE - waited))


def _begin(
    verb: Callable[..., Any], account: int, *args: Any, **kwargs: Any
) -> asyncio.Future[None]:
    writing = asyncio.ensure_future(_try_to_write(verb, account, *args, **kwargs))
    _writes[writing] = asyncio.get_running_loop().time()
    writing.add_done_callback(_writes.pop)
    return writing


async def _try_to_write(verb: Callable[..., Any], account: int, *args: Any, **kwargs: Any) -> None:
    """Write until the database takes it; until then this process at least knows."""
    loop = asyncio.get_running_loop()
    end, pause = loop.time() + KEEP_SECONDS, FIRST_PAUSE
    while True:
        try:
            await db.in_thread(verb, account, *args, **kwargs)
            return
        except DatabaseError as error:
            log.error("write health of account:%d: %s", account, type(error).__name__)
            if loop.time() > end or not isinstance(error, (OperationalError, InterfaceError)):
                return
        if verb is not health.reopen:
            bench.hold(account, timezone.now() + timedelta(seconds=pause) + UNTIL_KNOWN)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
