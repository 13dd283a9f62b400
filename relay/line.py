"""The requests of this process that wait for a place at an account, and how places are dealt."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta

from django.db import Error as DatabaseError
from django.utils import timezone

from accounts import pool
from accounts.pool import Member, Pool
from lib import counters
from relay import drain, news, quota, rivals
from relay.bench import bench
from relay.errors import Draining
from relay.fairness import MOST, Queue
from relay.quota import Place, Refused
from relay.ramp import ramp
from relay.turnover import Turnover
from relay.waiting import Waiting, Wish

PATIENCE = 5.0
# A session waits so long for its own account alone: elsewhere its prompt cache is lost.
OWN_SECONDS = 1.0
# Places that other processes leave are found by asking.
SHORTEST_POLL, LONGEST_POLL = 0.05, 0.15
LOOK_SECONDS = 0.1
# So many learn of a change before others have their turn.
AT_ONCE = 50
# So many may wait for each request that may be in flight.
ROOM = 2
log = logging.getLogger(__name__)

_level = counters.level("requests_waiting")


class Line:
    """Lets requests wait, and deals what is free: fair between keys, first come first served.

    A place that is left here is dealt at once, one that another process leaves within a poll.
    """

    def __init__(
        self,
        enter: Callable[..., Awaitable[Place | Refused]] = quota.enter,
        look: Callable[[], Awaitable[Pool]] = pool.snapshot.get,
        meet: Callable[[Sequence[int]], Awaitable[Collection[int]]] = rivals.met,
    ) -> None:
        self._enter, self.look, self._meet = enter, look, meet
        self.reset()

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self.queue: Queue[Waiting] = Queue()
        self.turnover = Turnover(lambda: asyncio.get_running_loop().time())
        self._view: Pool | None = None
        self._usable: frozenset[int] = frozenset()
        self._contested: Collection[int] = ()
        self._not_before: dict[int, float] = {}
        self._woken = asyncio.Event()
        self._dealer: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Deal anew: there may be room that was not there."""
        self._woken.set()

    async def ask(self, member: Member, wish: Wish) -> Place | Refused:
        """Take a place at an account if there is one, whoever waits for it."""
        is_counted = wish.counted == member.id
        got = await self._enter(member, wish.request, wish.trail, is_counted=is_counted)
        if isinstance(got, Place):
            got.start = ramp.take(member.id)
            got.on_left = functools.partial(self._left, got, wish.request.key.id)
            self.queue.take(wish.request.key.id)
        elif got.seconds:
            until = timezone.now() + timedelta(seconds=got.seconds)
            bench.pause(member.id, member.pace, until)
        return got

    async def wait(self, wish: Wish, own: int | None, until: float) -> Waiting:
        """Stand in line until there is a place, or no more hope or patience; return how it went.

        Raise Draining when the process ends meanwhile.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting = Waiting(wish, own, loop.create_future())
        if not self._refresh(waiting):
            return waiting
        # It is at no account meanwhile that could be cut.
        wish.trail.asking = None
        end = min(began + PATIENCE - wish.trail.queued, until)
        timers = [loop.call_at(end, self._give_up, waiting)]
        if waiting.wanted == (own,):
            timers.append(loop.call_at(began + OWN_SECONDS, self._widen, waiting))
        else:
            # It may come back meanwhile, but not to be the only one for the rest of the wait.
            waiting.own = None
        self._join(waiting)
        _level.value += 1
        try:
            await waiting.place
        except asyncio.CancelledError:
            waiting.hand_back()
            raise
        finally:
            _level.value -= 1
            for timer in timers:
                timer.cancel()
            self.queue.leave(waiting)
            if not len(self.queue):
                self.wake()
            wish.trail.queued += loop.time() - began
            counters.add("waits", waiting.ended)
        return waiting

    def _join(self, waiting: Waiting) -> None:
        # What counts is where it may go at last, not the one account that it wants for a second.
        wanted, waiting.wanted = waiting.wanted, tuple(waiting.members)
        room = sum(map(_room, waiting.members.values()))
        if (crowded_out := self.queue.join(waiting, room)) is not None:
            crowded_out.end("no_room")
        self.queue.want(waiting, wanted)
        loop = asyncio.get_running_loop()
        if self._dealer is None or self._dealer.done() or self._dealer.get_loop() is not loop:
            self._woken = asyncio.Event()
            self._dealer = loop.create_task(self._deal_on())
        self.wake()

    def _give_up(self, waiting: Waiting) -> None:
        self.queue.leave(waiting)
        waiting.end("gave_up")

    def _widen(self, waiting: Waiting) -> None:
        """Let a session go anywhere that waited for its own account."""
        waiting.own = None
        if self._refresh(waiting):
            self.wake()

    def _refresh(self, waiting: Waiting) -> bool:
        """Look whom a request may go to now; False: nobody, and its wait is over."""
        members = {member.id: member for member in waiting.wish.whom(self._view)}
        waiting.members = members
        wanted = (waiting.own,) if waiting.own in members else tuple(members)
        if wanted != waiting.wanted:
            self.queue.want(waiting, wanted)
            self.turnover.watch(wanted)
        waiting.wanted = wanted
        if not wanted:
            self._give_up(waiting)
        return bool(wanted)

    def _left(self, place: Place, key: int) -> None:
        account = place.member.id
        if place.start is not None:
            place.start.leave()
        self.queue.give_back(key)
        self.turnover.left(account)
        if not self.queue.is_wanted(account):
            return
        if account in self._contested:
            # Who waits in another process sees only what nobody here takes at once.
            pause = random.uniform(0, 2 * LONGEST_POLL)
            # One pause is not prolonged by the next place, or there would be no end of them.
            self._not_before.setdefault(account, asyncio.get_running_loop().time() + pause)
        self.wake()

    async def _deal_on(self) -> None:
        """Deal as long as anybody waits: whenever something has changed, and now and then."""
        beside = [asyncio.create_task(self._repeat(look)) for look in (self._follow, self._listen)]
        try:
            while len(self.queue):
                self._woken.clear()
                await _outlived(self._deal)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(random.uniform(SHORTEST_POLL, LONGEST_POLL)):
                        await self._woken.wait()
        finally:
            for task in beside:
                task.cancel()
            self._view, self._usable, self._contested = None, frozenset(), ()

    async def _deal(self) -> None:
        """Give out what is free, until there is nothing more that anybody wants."""
        if drain.is_draining():
            self._drain()
        now = asyncio.get_running_loop().time()
        self._not_before = {a: time for a, time in self._not_before.items() if time > now}
        closed = set(self._not_before)
        while (waiting := self.queue.next(closed)) is not None:
            if waiting.place.done():
                self.queue.leave(waiting)
                continue
            account = next(account for account in waiting.wanted if account not in closed)
            if not ramp.has_room(account):
                closed.add(account)
            elif self._refresh(waiting) and account in waiting.wanted:
                got = await self.ask(waiting.members[account], waiting.wish)
                if isinstance(got, Refused):
                    closed.add(account)
                else:
                    self._serve(waiting, got)

    def _drain(self) -> None:
        for waiting in self.queue:
            self.queue.leave(waiting)
            if not waiting.place.done():
                waiting.place.set_exception(Draining())

    def _serve(self, waiting: Waiting, place: Place) -> None:
        if not waiting.end("served", place):
            # It has gone meanwhile.
            place.leave()
        elif waiting in self.queue:
            self.queue.serve(waiting)

    async def _repeat(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            await _outlived(look)
            await asyncio.sleep(LOOK_SECONDS)

    async def _follow(self) -> None:
        """Follow the pool, so that those who wait learn who came back and who left."""
        with contextlib.suppress(DatabaseError):
            view, now = await self.look(), timezone.now()
            usable = _usable(view, now)
            if view is self._view and usable == self._usable:
                return
            self._view, self._usable = view, usable
            news.follow(view, now)
            for number, waiting in enumerate(self.queue, 1):
                self._refresh(waiting)
                if not number % AT_ONCE:
                    await asyncio.sleep(0)
            self.wake()

    async def _listen(self) -> None:
        """Learn for which accounts other processes wait as well."""
        self._contested = await self._meet(list(self.queue.wanted))


def _room(member: Member) -> int:
    """Return how many may wait for an account; many while it has a slow start."""
    most = MOST if ramp.is_starting(member.id) else member.max_in_flight
    return ROOM * (most or MOST)


def _usable(view: Pool, now: datetime) -> frozenset[int]:
    """Return the accounts that are not out for all: with time they return in the same view."""
    return frozenset(
        member.id
        for member in view.members
        if member.is_usable(now)
        and not bench.held_until(member.id, "", now)
        and not bench.paused_until(member.id, member.pace, now)
    )


async def _outlived(work: Callable[[], Awaitable[None]]) -> None:
    """Do what must not end all if it fails, or if what it asked is cancelled without it."""
    try:
        await work()
    except (Exception, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Whoever waits has a timer of its own.
        log.exception("deal places")


line = Line()
