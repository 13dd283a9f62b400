"""What an operator allows an account: requests at once, and requests and tokens a minute."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from types import TracebackType
from weakref import WeakKeyDictionary

from accounts.pool import Member
from lib import ledger
from lib.ledger import Allowance
from relay.answer import Answer
from relay.ramp import Start
from relay.request import ClientRequest
from relay.trail import Trail

RENEW_SECONDS = 20.0

_numbers = itertools.count()
_held: dict[str, int] = {}
_here: Counter[int] = Counter()
_leaving: set[asyncio.Task[None]] = set()
_renewers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no place: for `seconds`, or (0.0) until another request is over."""

    seconds: float


class Place:
    """A request's place at an account; left at the end of the block, or with the answer.

    `start` is the slow start in which it was taken, if one was under way; `on_left` is called when
    it is left, which happens once.
    """

    def __init__(self, member: Member, id: str, trail: Trail) -> None:
        self.member = member
        self.start: Start | None = None
        self.on_left: Callable[[], None] | None = None
        self._id = id
        self._trail = trail
        self._is_followed = self._is_left = False

    def follow(self, answer: Answer | None) -> None:
        """Keep the place until the answer is closed."""
        if answer is None:
            return
        self._is_followed, before = True, answer.on_close

        def close() -> None:
            if before is not None:
                before()
            self.leave()

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
            self.leave()

    def leave(self) -> None:
        """Leave it now."""
        if self._is_left:
            return
        self._is_left = True
        if self._id:
            if _held.pop(self._id, None) is not None:
                _count_out(self.member.id)
            _leave(self.member.id, self._id, self._trail.counted_tokens)
        if self.on_left is not None:
            self.on_left()


async def enter(
    member: Member, request: ClientRequest, trail: Trail, *, is_counted: bool = False
) -> Place | Refused:
    """Return a place for a request at an account, or for how long there is none.

    Accounts without limits cost no call. `is_counted` is for a further try of what nobody has seen
    (D01): it counts once against its minute.
    """
    allowed = _allowed(member)
    if is_counted:
        allowed = replace(allowed, requests=None)
    if allowed == Allowance() or not request.spends_quota:
        return Place(member, "", trail)
    if is_full_here(member):
        return Refused(0.0)
    id = f"{request.id}.{next(_numbers)}"
    if (wait := await _enter(member.id, allowed, id)) is not None:
        return Refused(wait.seconds)
    if allowed.in_flight is not None:
        _held[id] = member.id
        _keep_renewing()
    elif allowed.tokens is None:
        # A request was counted when it came; there is nothing to tell when it is over.
        id = ""
    return Place(member, id, trail)


def is_full_here(member: Member) -> bool:
    """Tell whether this process alone has all that the account may have in flight."""
    return member.max_in_flight is not None and _here[member.id] >= member.max_in_flight


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
    _here.clear()
    ledger.reset()


def _allowed(member: Member) -> Allowance:
    return Allowance(member.max_in_flight, member.requests_per_minute, member.tokens_per_minute)


def _name(account: int) -> str:
    return f"account:{account}"


async def _enter(account: int, allowed: Allowance, id: str) -> ledger.Wait | None:
    """Count a request in, here too, so that those that come meanwhile know of it."""
    here = _here[account]
    if allowed.in_flight is not None:
        _here[account] += 1
    is_in = False
    try:
        wait = await ledger.enter(_name(account), allowed, id, here=here)
        is_in = wait is None
        return wait
    except asyncio.CancelledError:
        # It is on its way already; nobody else would take it back.
        _leave(account, id, 0)
        raise
    finally:
        if not is_in and allowed.in_flight is not None:
            _count_out(account)


def _count_out(account: int) -> None:
    _here[account] -= 1
    if _here[account] <= 0:
        del _here[account]


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
