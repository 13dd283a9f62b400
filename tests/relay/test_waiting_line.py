"""Requests that wait for a place, in virtual time: who gets one when, and what is left behind."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts.pool import Member, Pool
from accounts.states import Kind, Status
from relay import drain, line, outcomes, places
from relay.bench import bench
from relay.errors import Draining, PoolLimited
from relay.line import LONGEST_POLL, OWN_SECONDS, PATIENCE, Line
from relay.quota import Place, Refused
from relay.ramp import ramp
from relay.request import ClientRequest
from relay.trail import Trail
from relay.waiting import Wish
from sessions_limit.keys import Key
from tests.support import virtual_loop

A, B = 1, 2
LONG = 1e6


@pytest.fixture(autouse=True)
def _forgets() -> Iterator[None]:
    outcomes.reset()
    yield
    outcomes.reset()
    drain.reset()


class Held(Place):
    """A place that the world counts."""

    world: World

    def leave(self) -> None:
        if not self._is_left:
            self.world.taken[self.member.id] -= 1
        super().leave()


@dataclass
class World:
    """Accounts with so many places, of which others may have some; and a line before them."""

    caps: dict[int, int]
    taken: Counter[int] = field(default_factory=Counter)
    others: Counter[int] = field(default_factory=Counter)
    gone: set[int] = field(default_factory=set)
    seconds: float = 0.0
    lag: float = 0.0
    asked: int = 0
    contested: frozenset[int] = frozenset()
    faults: list[BaseException] = field(default_factory=list)
    looks: list[BaseException] = field(default_factory=list)
    served: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.line = Line(self.enter, self.look, self.meet)
        self.pool = Pool()

    async def enter(
        self, member: Member, request: ClientRequest, trail: Trail, *, is_counted: bool
    ) -> Place | Refused:
        self.asked += 1
        if self.faults:
            raise self.faults.pop()
        if self.lag:
            await asyncio.sleep(self.lag)
        if self.seconds:
            return Refused(self.seconds)
        if not self.is_free(member.id):
            return Refused(0.0)
        self.taken[member.id] += 1
        place = Held(member, "", trail)
        place.world = self
        return place

    def is_free(self, account: int) -> bool:
        return self.taken[account] + self.others[account] < self.caps[account]

    async def look(self) -> Pool:
        if self.looks:
            raise self.looks.pop()
        return self.pool

    async def meet(self, accounts: Sequence[int]) -> Collection[int]:
        return self.contested

    def whom(self, accounts: Sequence[int]) -> list[Member]:
        return [member(a, self.caps[a]) for a in accounts if a not in self.gone]

    async def place(
        self,
        key: int = 1,
        accounts: Sequence[int] = (A,),
        *,
        bound: int | None = None,
        trail: Trail | None = None,
    ) -> Place | None:
        """Ask for a place as one request of a key, of a session if it is `bound`."""
        trail = Trail() if trail is None else trail
        trail.bound = bound
        asked = replace(REQUEST, key=Key(key, "key", None), session=bound and "s")
        views: list[Pool | None] = []

        def whom(view: Pool | None) -> list[Member]:
            views.append(view)
            return self.whom(accounts)

        self.views = views
        wish = Wish(asked, trail, whom)
        until = asyncio.get_running_loop().time() + LONG
        got = await places.admit(self.whom(accounts)[0], wish, until, self.line)
        if got is not None:
            self.served.append((key, got.member.id))
        return got

    async def ask(self, seconds: float, *args: Any, **kwargs: Any) -> str:
        """Hold a place for so long; return how it went."""
        try:
            place = await self.place(*args, **kwargs)
        except PoolLimited:
            return "refused"
        assert place is not None
        with place:
            await asyncio.sleep(seconds)
        return "served"

    def assert_nobody_waits_for_what_is_free(self) -> None:
        wanted = self.line.queue.wanted
        assert not any(self.is_free(account) and ramp.has_room(account) for account in wanted)

    def assert_nothing_is_left(self) -> None:
        assert +self.taken == Counter()
        assert not self.line.queue.held
        assert not len(self.line.queue)
        assert not self.line.queue.wanted


REQUEST = ClientRequest("rly_1", Key(1, "key", None), "POST", "/v1/messages", "", (), b"", "opus")


def member(account: int, cap: int | None) -> Member:
    plain = Member(account, "", Kind.OAUTH, Status.ACTIVE, None, None, None, UUID(int=1), "")
    return replace(plain, max_in_flight=cap)


def elapsed(since: float) -> float:
    return asyncio.get_running_loop().time() - since


def begin(*asks: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(ask) for ask in asks]


def test_a_free_place_costs_no_task_and_no_timer() -> None:
    world = World({A: 2})

    async def story() -> None:
        place = await world.place()
        assert place is not None
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        place.leave()

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_a_place_is_left_once() -> None:
    world = World({A: 2})

    async def story() -> None:
        one, two = [await world.place(), await world.place()]
        assert one is not None
        assert two is not None
        one.leave()
        one.leave()
        assert world.line.queue.held == {1: 1}
        two.leave()

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_a_key_with_two_requests_is_served_before_the_many_of_another() -> None:
    world = World({A: 2})

    async def story() -> None:
        many = begin(*(world.ask(0.3, 1) for _ in range(16)))
        await asyncio.sleep(0.1)
        few = begin(*(world.ask(0.3, 2) for _ in range(2)))
        await asyncio.gather(*few, *many)

    virtual_loop.run(story())
    order = [key for key, _ in world.served]
    assert sorted(order[2:4]) == sorted(order[4:6]) == [1, 2]
    world.assert_nothing_is_left()


def test_a_newcomer_does_not_overtake_who_waits_for_the_same_account() -> None:
    world = World({A: 1, B: 1})

    async def story() -> None:
        held = await world.place()
        assert held is not None
        (waiting,) = begin(world.place(2))
        await asyncio.sleep(0.1)
        (newcomer, other) = begin(world.place(3), world.place(3, (A, B)))
        held.leave()
        place = await waiting
        assert place is not None
        assert (await other).member.id == B
        assert not newcomer.done()
        place.leave()
        (await newcomer).leave()
        other.result().leave()

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_who_hangs_up_leaves_the_line_at_once_and_gives_back_what_was_just_dealt() -> None:
    world = World({A: 1})

    async def story() -> None:
        held = await world.place()
        assert held is not None
        (gone, lucky) = begin(world.place(2), world.place(3))
        await asyncio.sleep(0.1)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert [waiting.key for waiting in world.line.queue] == [3]
        held.leave()
        while len(world.line.queue):
            await asyncio.sleep(0)
        assert not lucky.done()
        lucky.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lucky

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_a_place_that_is_left_while_others_are_dealt_is_not_forgotten() -> None:
    world = World({A: 1, B: 1}, lag=0.2)
    world.others[B] = 1

    async def story() -> None:
        held = await world.place()
        assert held is not None
        (first, second) = begin(world.place(2, (A,)), world.place(3, (B,)))
        # Both have been asked for in vain; then the line asks again, for one after the other.
        await asyncio.sleep(0.5)
        began = asyncio.get_running_loop().time()
        held.leave()
        place = await first
        assert elapsed(began) == pytest.approx(0.1 + 0.2)
        place.leave()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_who_waits_in_vain_is_told_so_after_five_seconds_and_when_to_come() -> None:
    world, trail = World({A: 1}), Trail()

    async def story() -> PoolLimited:
        holder = begin(world.ask(60))
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        with pytest.raises(PoolLimited) as refused:
            await world.place(trail=trail)
        assert elapsed(began) == pytest.approx(PATIENCE)
        await asyncio.gather(*holder)
        return refused.value

    refused = virtual_loop.run(story())
    # Nobody left the account while it was watched, for these five seconds.
    assert refused.retry_after == 5
    assert trail.queued == pytest.approx(PATIENCE)
    assert [attempt.row for attempt in trail.attempts] == ["quota"]
    world.assert_nothing_is_left()


def test_a_limit_that_ends_sooner_than_places_are_left_is_what_is_told() -> None:
    world, soon = World({A: 1}), timezone.now() + timedelta(seconds=3)
    limited = replace(member(B, None), status=Status.RATE_LIMITED, limited_until=soon)
    world.pool = Pool((member(A, 1), limited))

    async def story() -> PoolLimited:
        holder = begin(world.ask(60))
        await asyncio.sleep(0.1)
        with pytest.raises(PoolLimited) as refused:
            await world.place()
        await asyncio.gather(*holder)
        return refused.value

    assert virtual_loop.run(story()).retry_after == 3


def test_a_request_waits_five_seconds_in_all_however_often_it_has_to() -> None:
    world, trail = World({A: 1}), Trail(queued=4.0)

    async def story() -> None:
        holder = begin(world.ask(60))
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        with pytest.raises(PoolLimited):
            await world.place(trail=trail)
        assert elapsed(began) == pytest.approx(1)
        await asyncio.gather(*holder)

    virtual_loop.run(story())


def test_a_session_waits_a_second_for_its_own_account_and_then_goes_elsewhere() -> None:
    world = World({A: 1, B: 1})

    async def story() -> None:
        holder = begin(world.ask(60))
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        other = await world.place(2, (A, B))
        assert (other and other.member.id, elapsed(began)) == (B, 0)
        assert other is not None
        other.leave()

        own = await world.place(2, (A, B), bound=A)
        assert own is not None
        assert own.member.id == B
        assert elapsed(began) == pytest.approx(OWN_SECONDS)
        own.leave()
        await asyncio.gather(*holder)

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_a_place_that_another_process_leaves_is_found_within_a_poll() -> None:
    world = World({A: 1})
    world.others[A] = 1

    async def story() -> None:
        (waiting,) = begin(world.place())
        await asyncio.sleep(2.0)
        world.others[A] = 0
        began = asyncio.get_running_loop().time()
        place = await waiting
        assert elapsed(began) <= LONGEST_POLL
        place.leave()

    virtual_loop.run(story())
    assert world.asked < 60
    world.assert_nothing_is_left()


def test_no_process_takes_what_it_leaves_at_once_while_others_wait_for_it() -> None:
    world = World({A: 1}, contested=frozenset({A}))

    async def story() -> None:
        (holder, waiting) = begin(world.ask(1.0), world.place())
        await holder
        began = asyncio.get_running_loop().time()
        place = await waiting
        assert 0 < elapsed(began) <= 4 * LONGEST_POLL
        place.leave()

    virtual_loop.run(story())


def test_an_account_that_returns_is_asked_in_steps_while_that_helps() -> None:
    world = World({A: 100})
    ramp.restart(A)

    async def story() -> None:
        asking = begin(*(world.place(key) for key in range(20)))
        counts = []
        for _ in range(4):
            await asyncio.sleep(0.1)
            counts.append(world.taken[A])
            ramp.succeeded(A, ramp._starts[A])
            world.line.wake()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [*counts, world.taken[A]] == [1, 2, 4, 8, 20]
        for place in await asyncio.gather(*asking):
            assert place is not None
            place.leave()

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_a_slow_start_alone_refuses_nobody() -> None:
    world = World({A: 100})
    ramp.restart(A)

    async def story() -> list[str]:
        return await asyncio.gather(*(world.ask(30, key) for key in range(40)))

    assert virtual_loop.run(story()) == ["served"] * 40
    world.assert_nothing_is_left()


def test_a_full_line_is_no_way_past_a_slow_start() -> None:
    world = World({A: 20})
    ramp.restart(A)

    async def story() -> None:
        asking = begin(*(world.ask(0.1, 1) for _ in range(60)))
        await asyncio.sleep(0.05)
        assert (world.taken[A], len(world.line.queue)) == (1, 59)
        ramp.succeeded(A, ramp._starts[A])
        assert await asyncio.gather(*asking) == ["served"] * 60

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_who_waits_learns_of_an_account_that_comes_and_of_one_that_goes() -> None:
    world = World({A: 1, B: 1}, gone={B})

    async def story() -> None:
        holder = begin(world.ask(60))
        await asyncio.sleep(0)
        (first, second) = begin(world.place(2, (A, B)), world.place(3, (A, B)))
        await asyncio.sleep(1)
        world.gone, world.pool = {A}, Pool()
        began = asyncio.get_running_loop().time()
        place = await first
        assert place.member.id == B
        assert elapsed(began) < 0.3
        world.gone, world.pool = {A, B}, Pool()
        assert await second is None
        assert elapsed(began) < 0.6
        place.leave()
        await asyncio.gather(*holder)

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_an_old_view_of_the_pool_is_not_kept_for_those_who_wait_later() -> None:
    world = World({A: 1})

    async def story() -> None:
        for _ in range(2):
            (holder, waiting) = begin(world.ask(1), world.place(2))
            (await waiting).leave()
            await holder
            # At first it is chosen from the view that the request has itself.
            assert world.views[:2] == [None, None]
            assert world.views[-1] is world.pool
            await asyncio.sleep(1)

    virtual_loop.run(story())


def test_who_waits_learns_of_an_account_that_returns_by_itself() -> None:
    world = World({A: 1, B: 3}, gone={B})
    world.pool = Pool((member(A, 1), member(B, 3)))
    bench.hold(B, timezone.now() + timedelta(hours=1))

    async def story() -> None:
        (holder, *waiting) = begin(world.ask(60), *(world.place(2, (A, B)) for _ in range(3)))
        await asyncio.sleep(1)
        world.gone = set()
        bench.clear(B)
        began = asyncio.get_running_loop().time()
        places = await asyncio.gather(*waiting)
        assert elapsed(began) < 0.3
        for place in places:
            assert place.member.id == B
            place.leave()
        await holder

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_an_own_account_that_comes_late_is_not_all_that_a_session_waits_for() -> None:
    world = World({A: 1, B: 1}, gone={A})
    world.others[A] = 1

    async def story() -> None:
        (holder, waiting) = begin(world.ask(2, 1, (B,)), world.place(2, (B, A), bound=A))
        await asyncio.sleep(0.5)
        world.gone, world.pool = set(), Pool()
        await holder
        began = asyncio.get_running_loop().time()
        place = await waiting
        assert (place.member.id, elapsed(began)) == (B, 0)
        place.leave()

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_a_process_that_leaves_many_places_still_gets_some_while_others_wait_too() -> None:
    world = World({A: 40}, contested=frozenset({A}))

    async def story() -> None:
        holders = begin(*(world.ask(0.03 * number) for number in range(1, 41)))
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        place = await world.place(2)
        assert place is not None
        assert elapsed(began) < 4 * LONGEST_POLL
        place.leave()
        await asyncio.gather(*holders)

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_the_line_goes_on_when_what_it_asked_is_cancelled_or_fails() -> None:
    world = World({A: 1})

    async def story() -> None:
        (holder, waiting) = begin(world.ask(1), world.place(2))
        await asyncio.sleep(0.5)
        world.faults = [asyncio.CancelledError(), RuntimeError()]
        await holder
        began = asyncio.get_running_loop().time()
        place = await waiting
        assert elapsed(began) <= 2 * LONGEST_POLL
        place.leave()

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_who_waits_still_learns_of_the_pool_when_a_look_at_it_has_failed() -> None:
    world = World({A: 1, B: 1}, gone={B})

    async def story() -> None:
        (holder, waiting) = begin(world.ask(60), world.place(2, (A, B)))
        await asyncio.sleep(1)
        world.looks = [asyncio.CancelledError(), RuntimeError()]
        await asyncio.sleep(0.5)
        assert not world.looks
        world.gone, world.pool = set(), Pool()
        began = asyncio.get_running_loop().time()
        place = await waiting
        assert elapsed(began) < 0.3
        place.leave()
        await holder

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_a_session_that_wants_its_own_account_only_crowds_nobody_out_of_all_of_them() -> None:
    world = World({A: 10, B: 10})

    async def story() -> None:
        holders = begin(*(world.ask(2, 1, (account,)) for account in (A, B) for _ in range(10)))
        await asyncio.sleep(0)
        waiting = begin(*(world.ask(0.1, 1, (A, B)) for _ in range(30)))
        session = begin(world.ask(0.1, 2, (A, B), bound=A))
        assert await asyncio.gather(*holders, *waiting, *session) == ["served"] * 51

    virtual_loop.run(story())
    world.assert_nothing_is_left()


def test_who_waits_is_told_when_the_process_ends() -> None:
    world = World({A: 1})

    async def story() -> None:
        (holder, waiting) = begin(world.ask(60), world.place())
        await asyncio.sleep(1)
        drain.begin()
        began = asyncio.get_running_loop().time()
        with pytest.raises(Draining):
            await waiting
        assert elapsed(began) <= LONGEST_POLL
        await holder

    virtual_loop.run(story())
    world.assert_nothing_is_left()


@given(st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_nothing_is_lost_and_nobody_waits_for_what_is_free(seed: int) -> None:
    live(seed)


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=3000, deadline=None)
def test_so_it_is_whatever_happens(seed: int) -> None:
    live(seed)


def live(seed: int) -> None:
    """Let requests of several keys come, be served, give up and hang up at any moment."""
    dice = random.Random(seed)
    is_alone = dice.random() < 0.5
    outcomes.reset()
    world = World({A: dice.randint(1, 3), B: dice.randint(1, 3)})
    world.lag = dice.choice([0.0, 0.0, 0.001, 0.03])

    async def client(number: int) -> None:
        await asyncio.sleep(dice.uniform(0, 0.3))
        wanted = dice.choice([(A,), (B,), (A, B), (B, A)])
        bound = dice.choice([None, *wanted])
        asking = world.ask(dice.choice([0.0, 0.05, 0.3, 0.8]), number % 3, wanted, bound=bound)
        began, (task,) = asyncio.get_running_loop().time(), begin(asking)
        if dice.random() < 0.4:
            await asyncio.sleep(dice.choice([0.0, 0.001, 0.03, 0.1, 0.499, 0.5]))
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert elapsed(began) <= line.PATIENCE + 1.0
        for _ in range(8):
            await asyncio.sleep(0)
        if is_alone and not world.lag:
            world.assert_nobody_waits_for_what_is_free()

    async def others() -> None:
        for _ in range(0 if is_alone else 3):
            await asyncio.sleep(dice.uniform(0, 0.3))
            account = dice.choice([A, B])
            world.others[account] = dice.choice([0, 1])
            if dice.random() < 0.5:
                dice.choice([ramp.restart, ramp.ease])(account)
        world.others.clear()

    async def story() -> None:
        await asyncio.gather(others(), *(client(number) for number in range(dice.randint(2, 12))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line, "PATIENCE", 0.5)
        patch.setattr(line, "OWN_SECONDS", 0.1)
        virtual_loop.run(story())
    world.assert_nothing_is_left()
    assert not any(start.places for start in ramp._starts.values())
