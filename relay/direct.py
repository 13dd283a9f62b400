"""One account is asked and no other: for what only it has, and for what must not be sent twice."""

from __future__ import annotations

import asyncio
import random

from django.conf import settings

from accounts.pool import Member
from relay import answer, attempt, effects, renewing, verdicts
from relay.answer import Answer
from relay.errors import PoolLimited, PoolUnavailable
from relay.facts import Facts, Failed
from relay.request import ClientRequest
from relay.trail import Attempt, Trail
from relay.uploads import Upload
from relay.verdicts import Effect, Row

MOST_ATTEMPTS = 3
# These say how busy this one address is, nothing of the account's messages.
NOT_OF_THE_ACCOUNT = frozenset({Effect.COOL_DOWN, Effect.PENALTY, Effect.BUCKET})


async def ask(
    request: ClientRequest,
    member: Member,
    trail: Trail,
    *,
    upload: Upload | None = None,
    is_raw: bool = False,
) -> Answer:
    """Return the account's answer, refusals that are the client's included; raise RelayError.

    A body that passes through is sent once: only a connection that never came about is tried again,
    and only before a byte was taken from the client. Without one, a kept connection that was closed
    and a refused credential are worth a second try.
    """
    asked, is_fresh = {member.credential}, upload is not None
    trail.asking = member.id
    for number in range(1, MOST_ATTEMPTS + 1):
        got, known = await _attempt(request, member, upload, is_raw=is_raw, is_fresh=is_fresh)
        row = verdicts.judge(known)
        trail.attempts.append(Attempt(member.id, row.id, known.status))
        if row.delivers and got is not None:
            return got
        try:
            following = None
            if number < MOST_ATTEMPTS and (upload is None or not upload.begun):
                following = await _again(row, known, member, number)
            if following is None:
                return await _end(row, known, member, got, upload, was_renewed=len(asked) > 1)
        except BaseException:
            if got is not None:
                got.close()
            raise
        if got is not None:
            got.close()
        member, is_fresh = following, True
        asked.add(member.credential)
    raise AssertionError("the last attempt ends the loop")


async def _again(row: Row, known: Facts, member: Member, number: int) -> Member | None:
    """Return the account, with a newer token if that was refused, for a second try; else None."""
    if number > 1 and row.id != "D04":
        return None
    if row.id == "D04":
        return member
    if row.id == "D01":
        await asyncio.sleep(random.uniform(*row.wait))
        return member
    if row.effect is Effect.RENEW and known.can_refresh:
        return await renewing.renewed(member, rejected=True)
    return None


async def _end(
    row: Row,
    known: Facts,
    member: Member,
    got: Answer | None,
    upload: Upload | None,
    *,
    was_renewed: bool,
) -> Answer:
    """Apply what the answer means for the account, and return or raise what the client gets."""
    if row.effect is Effect.RENEW:
        await _reject(row, known, member, was_renewed=was_renewed)
    elif row.effect not in NOT_OF_THE_ACCOUNT:
        await effects.apply(row, known, member, "")
    # A limit is the answer: nobody else can give what only this account has. Who creates something
    # new asks again, and then another account (see resources.create).
    is_answer = row.ends is None or (row.ends is PoolLimited and upload is None)
    if got is not None and is_answer:
        return got
    raise row.ends() if row.ends else PoolUnavailable()


async def _reject(row: Row, known: Facts, member: Member, *, was_renewed: bool) -> None:
    if was_renewed:
        await effects.reject_credential(row, known, member)
    elif not known.can_refresh or await renewing.renewed(member, rejected=True) is None:
        # One refusal is no proof; the account rests, and the next message that it gets decides.
        await effects.rest(member, row.reason)


async def _attempt(
    request: ClientRequest, member: Member, upload: Upload | None, *, is_raw: bool, is_fresh: bool
) -> tuple[Answer | None, Facts]:
    read = answer.read_raw if is_raw else answer.read
    until = asyncio.get_running_loop().time() + settings.CONFIG.relay_timeout
    limit = asyncio.timeout_at(until)
    if upload is None:
        return await attempt.make(request, member, limit, fresh=is_fresh, read=read)
    length = [("content-length", upload.length)] if upload.length else []
    body = upload.pieces(limit)
    got, known = await attempt.make(
        request, member, limit, body=body, added=length, fresh=is_fresh, read=read
    )
    if known.failed is Failed.LOST and upload.failure is not None:
        raise upload.failure
    return got, known
