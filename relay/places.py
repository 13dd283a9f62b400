"""A place for a request: at once where there is one, else after a short and fair wait."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils import timezone

from accounts.pool import Member
from relay import routing
from relay.bench import bench
from relay.errors import PoolLimited
from relay.line import Line
from relay.line import line as LINE
from relay.quota import Place
from relay.ramp import ramp
from relay.trail import Attempt
from relay.waiting import Waiting, Wish

BUSY = "All accounts of this relay are busy for now."


async def admit(first: Member, wish: Wish, until: float, line: Line = LINE) -> Place | None:
    """Return a place at `first`, or else at one of those that the wish names.

    When all of them are full it waits in line, at most until `until`. None: nobody can have the
    request, and no wait would change that. Raise PoolLimited when they were full for too long,
    Draining when the process ends meanwhile.
    """
    if not wish.request.spends_quota:
        return Place(first, "", wish.trail)
    own = _own(wish)
    passed: list[int] = []
    is_any_full = False
    for member in _in_turn(first, wish):
        if line.queue.is_wanted(member.id) or not ramp.has_room(member.id):
            seconds = 0.0
        else:
            got = await line.ask(member, wish)
            if isinstance(got, Place):
                _note(passed, got, wish)
                return got
            seconds = got.seconds
        passed.append(member.id)
        is_any_full |= not seconds
        if member.id == own and not seconds:
            break
    if not is_any_full:
        _note(passed, None, wish)
        return None
    waited = await line.wait(wish, own, until)
    place = waited.place.result()
    if place is None and waited.ended != "no_room":
        place = await _last(waited, line)
    _note(passed, place, wish)
    if place is None and waited.members:
        raise await _busy(waited, line)
    return place


async def _last(waited: Waiting, line: Line) -> Place | None:
    """Ask those that are spared by a slow start alone: nobody is refused because of that."""
    for member in waited.members.values():
        if member.max_in_flight is None or not ramp.has_room(member.id):
            got = await line.ask(member, waited.wish)
            if isinstance(got, Place):
                return got
    return None


async def _busy(waited: Waiting, line: Line) -> PoolLimited:
    """Return when there may be room: by how fast places are left, or when a limit ends."""
    accounts = waited.members.keys()
    seconds = line.turnover.estimate(accounts, line.queue.rivals(accounts))
    view = await line.look()
    told = routing.nobody(view, bench, waited.wish.request, timezone.now())
    if isinstance(told, PoolLimited) and told.retry_after is not None:
        seconds = min(seconds, told.retry_after)
    return PoolLimited(BUSY, retry_after=seconds)


def _in_turn(first: Member, wish: Wish) -> Iterator[Member]:
    yield first
    yield from (member for member in wish.whom(None) if member.id != first.id)


def _own(wish: Wish) -> int | None:
    """Return the account where the session's prompt cache is; one that is new has none."""
    request = wish.request
    return wish.trail.bound if request.session is not None and request.claimed is None else None


def _note(passed: list[int], place: Place | None, wish: Wish) -> None:
    """Tell in the trail which accounts had no place for the request."""
    chosen = None if place is None else place.member.id
    wish.trail.attempts += [Attempt(account, "quota") for account in passed if account != chosen]
