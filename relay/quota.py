"""What an operator allows an account: requests at once, and requests and tokens a minute."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from types import TracebackType
from weakref import WeakKeyDictionary

from accounts.pool import Member
from lib import ledger
from lib.ledger import Allowance
from relay.answer import Answer
from relay.ramp import ramp
from relay.request import ClientRequest
from relay.trail import Trail

RENEW_SECONDS = 20.0
PATIENCE, SHORTEST_POLL, LONGEST_POLL = 1.0, 0.05, 0.1

_numbers = itertools.count()
_held: dict[str, int] = {}
_leaving: set[asyncio.Task[None]] = set()
_renewers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Refused:
    """The account cannot have the request: for `seconds`, or (0.0) until another one is over."""

    seconds: float


class Place:
    """A request's place at an account; left at the end of the block, or with the answer."""

    def __init__(self, member: Member, id: str, trail: Trail) -> None:
        self._member = member
        self._id = id
        self._trail = trail
        self._is_followed = False

    def follow(self, answer: Answer | None) -> None:
        """Keep the place until the answer is closed."""
        if answer is None:
            return
        self._is_followed, before = True, answer.on_close

        def close() -> None:
            if before is not None:
                before()
            self._leave()

        answer.on_close = close

    def __enter__(self) -> Place:
        """Hold the place."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave it, unless an answer keeps it."""
        if not self._is_followed:
            self._leave()

    def _leave(self) -> None:
        _held.pop(self._id, None)
        if self._id:
            _leave(self._member.id, self._id, _tokens(self._trail))


async def admit(
    member: Member, request: ClientRequest, trail: Trail, *, is_counted: bool = False
) -> Place | Refused:
    """Return a place for a request at an account, or for how long there is none.

    Accounts without limits cost no call. A session waits a moment for its own account when that
    only has too much in flight: elsewhere its prompt cache would be lost. `is_counted` is for a
    further try of what nobody has seen (D01): it counts once against its minute.
    """
    allowed = _allowed(member)
    if is_counted:
        allowed = replace(allowed, requests=None)
    if allowed == Allowance() or not request.spends_quota:
        return Place(member, "", trail)
    is_own = request.session is not None and member.id == trail.bound
    end = time.monotonic() + (PATIENCE if is_own else 0.0)
    id = f"{request.id}.{next(_numbers)}"
    while (wait := await _enter(member.id, allowed, id)) is not None:
        if wait.seconds or time.monotonic() >= end:
            return Refused(wait.seconds)
        await asyncio.sleep(random.uniform(SHORTEST_POLL, LONGEST_POLL))
    if allowed.in_flight is not None:
        _held[id] = member.id
        _keep_renewing()
    elif allowed.tokens is None:
        # A request was counted when it came; there is nothing to tell when it is over.
        id = ""
    return Place(member, id, trail)


async def renew(now: float | None = None) -> None:
    """Tell Redis what this process has in flight, all at once."""
    by_account: dict[int, list[str]] = {}
    for id, account in _held.items():
        by_account.setdefault(account, []).append(id)
    renewals = (ledger.renew(_name(account), ids, now) for account, ids in by_account.items())
    await asyncio.gather(*renewals)


async def settled() -> None:
    """End what runs beside the requests of this loop, when all that they used is counted."""
    loop = asyncio.get_running_loop()
    if (renewer := _renewers.pop(loop, None)) is not None:
        renewer.cancel()
    if ours := [task for task in _leaving if task.get_loop() is loop]:
        await asyncio.wait(ours)


def reset() -> None:
    """Forget what this process holds and has counted (for tests)."""
    _held.clear()
    ledger.reset()


def _allowed(member: Member) -> Allowance:
    return Allowance(member.max_in_flight, member.requests_per_minute, member.tokens_per_minute)


def _name(account: int) -> str:
    return f"account:{account}"


async def _enter(account: int, allowed: Allowance, id: str) -> ledger.Wait | None:
    try:
        return await ledger.enter(_name(account), allowed, id, here=ramp.in_flight(account))
    except asyncio.CancelledError:
        # It is on its way already; nobody else would take it back.
        _leave(account, id, 0)
        raise


def _leave(account: int, id: str, tokens: int) -> None:
    """Count a request out without holding anybody up."""
    _begin(ledger.leave(_name(account), id, tokens))


def _begin(work: Coroutine[None, None, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _leaving.add(task)
    task.add_done_callback(_leaving.discard)


def _keep_renewing() -> None:
    loop = asyncio.get_running_loop()
    if loop not in _renewers or _renewers[loop].done():
        _renewers[loop] = loop.create_task(_renew_all())


async def _renew_all() -> None:
    while _held:
        await asyncio.sleep(RENEW_SECONDS)
        await renew()


def _tokens(trail: Trail) -> int:
    """Return what counts against a minute: cached input that is only read does not."""
    used = trail.usage
    counts = used.input_tokens, used.output_tokens, used.cache_creation_input_tokens
    return sum(count or 0 for count in counts)
