"""Who is next: the key with the fewest places, in turn among equals, first come first served."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.fairness import FEWEST, MOST, Queue
from relay.ramp import Ramp, Start
from relay.turnover import Turnover

A, B, C = 1, 2, 3


@dataclass(eq=False)
class Waiter:
    key: int
    wanted: tuple[int, ...] = (A,)


def joined(queue: Queue[Waiter], *waiters: Waiter, room: int = MOST) -> list[Waiter]:
    for waiter in waiters:
        assert queue.join(waiter, room) is None
    return list(waiters)


def served(queue: Queue[Waiter], closed: frozenset[int] = frozenset()) -> Waiter | None:
    """Give the next place away, to be held for good."""
    waiter = queue.next(closed)
    if waiter is not None:
        queue.serve(waiter)
        queue.take(waiter.key)
    return waiter


def test_the_key_with_the_fewest_places_is_next_and_within_a_key_who_came_first() -> None:
    queue: Queue[Waiter] = Queue()
    big = joined(queue, *(Waiter(1) for _ in range(4)))
    small = joined(queue, Waiter(2), Waiter(2))
    queue.take(1)

    order = [served(queue) for _ in range(6)]

    assert order == [small[0], big[0], small[1], *big[1:]]
    assert served(queue) is None
    assert not len(queue)


def test_keys_that_hold_as_much_take_turns_whoever_began_to_wait_first() -> None:
    queue: Queue[Waiter] = Queue()
    for key in (1, 1, 1, 2, 2, 2):
        joined(queue, Waiter(key))

    order = []
    for _ in range(4):
        waiter = queue.next(())
        assert waiter is not None
        queue.serve(waiter)  # and the place is left at once
        order.append(waiter.key)
        joined(queue, Waiter(waiter.key))

    assert order == [1, 2, 1, 2]


def test_who_waits_for_one_account_is_in_nobodys_way_at_another() -> None:
    queue: Queue[Waiter] = Queue()
    first, second, third = joined(queue, Waiter(1), Waiter(1, (A, B)), Waiter(2, (B,)))
    queue.take(2)

    assert queue.next({A}) is second
    assert queue.next({A, B}) is None
    assert queue.is_wanted(B)
    queue.leave(second)
    assert queue.next({A}) is third
    queue.want(first, (B, C))
    assert queue.next({A}) is first
    assert not queue.is_wanted(A)


def test_when_all_is_full_the_newest_of_the_key_with_the_most_gives_way() -> None:
    queue: Queue[Waiter] = Queue()
    big = joined(queue, *(Waiter(1) for _ in range(FEWEST)), room=1)

    small = [Waiter(2) for _ in range(FEWEST)]
    gone = [queue.join(waiter, 1) for waiter in small]

    half = FEWEST // 2
    assert gone[:half] == big[: half - 1 : -1]
    assert gone[half:] == small[half:]
    assert len(queue) == FEWEST
    assert queue.join(Waiter(3, (B,)), 1) is None
    late = Waiter(1)
    assert queue.join(late, 1) is late


def test_no_more_than_a_thousand_wait_for_whatever() -> None:
    queue: Queue[Waiter] = Queue()
    joined(queue, *(Waiter(1, (number,)) for number in range(MOST)))

    late, other = Waiter(1, (MOST,)), Waiter(2, (MOST,))
    assert queue.join(late, MOST) is late
    assert queue.join(other, MOST) is not other
    assert len(queue) == MOST


STEPS = ["join", "join", "join", "serve", "serve", "leave", "give back", "want"]
SEEDS = st.integers(0, 2**32)


@given(SEEDS)
@settings(max_examples=1000, deadline=None)
def test_every_place_goes_to_whom_the_rules_name(seed: int) -> None:
    dice = random.Random(seed)
    queue: Queue[Waiter] = Queue()
    waiting: list[Waiter] = []
    since: dict[int, int] = {}
    for now in range(25):
        what, key = dice.choice(STEPS), dice.randrange(4)
        accounts = set(dice.sample([A, B, C], dice.randint(1, 3)))
        one = dice.choice(waiting) if waiting else None
        if what == "join":
            if not any(waiter.key == key for waiter in waiting):
                since[key] = now
            waiting += joined(queue, Waiter(key, tuple(accounts)))
        elif what == "serve":
            chosen = queue.next({A, B, C} - accounts)
            assert chosen is expected(waiting, accounts, queue.held, since)
            if chosen is not None:
                queue.serve(chosen)
                queue.take(chosen.key)
                waiting.remove(chosen)
                since[chosen.key] = now
        elif what == "leave" and one is not None:
            queue.leave(one)
            waiting.remove(one)
        elif what == "give back" and queue.held[key]:
            queue.give_back(key)
        elif what == "want" and one is not None:
            queue.want(one, tuple(accounts))
        assert len(queue) == len(waiting)
        assert set(queue.wanted) == {a for waiter in waiting for a in waiter.wanted}
        assert queue.rivals(accounts) == sum(not accounts.isdisjoint(w.wanted) for w in waiting)


def expected(
    waiting: list[Waiter], free: set[int], held: Counter[int], since: dict[int, int]
) -> Waiter | None:
    """Return who is next by the rules, in their own words."""
    could = [waiter for waiter in waiting if not free.isdisjoint(waiter.wanted)]
    if not could:
        return None
    fewest = min(held[waiter.key] for waiter in could)
    equal = {waiter.key for waiter in could if held[waiter.key] == fewest}
    longest = min(equal, key=lambda key: since[key])
    return next(waiter for waiter in could if waiter.key == longest)


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_the_shares_are_those_of_max_min_fairness(seed: int) -> None:
    """Each key has so many clients, which wait again as soon as they were served."""
    dice = random.Random(seed)
    demands = [dice.randint(0, 8) for _ in range(dice.randint(1, 5))]
    places = dice.randint(1, 12)
    queue: Queue[Waiter] = Queue()
    for key, demand in enumerate(demands):
        joined(queue, *(Waiter(key) for _ in range(demand)))
    held: deque[int] = deque()

    for _ in range(60):
        while len(held) < places and (waiter := served(queue)) is not None:
            held.append(waiter.key)
        if not held:
            break
        held.rotate(dice.randrange(len(held)))
        queue.give_back(left := held.popleft())
        joined(queue, Waiter(left))
    while len(held) < places and (waiter := served(queue)) is not None:
        held.append(waiter.key)

    assert len(held) == min(places, sum(demands))
    poorest = min((queue.held[waiter.key] for waiter in queue), default=max(demands))
    assert all(queue.held[key] <= poorest + 1 for key in range(len(demands)))


@given(st.lists(st.integers(1, 5), min_size=2, max_size=8))
@settings(max_examples=100, deadline=None)
def test_nobody_starves_while_others_come_again_and_again(crowds: list[int]) -> None:
    """With one place, each key waits no longer than once round."""
    queue: Queue[Waiter] = Queue()
    for key, crowd in enumerate(crowds):
        joined(queue, *(Waiter(key) for _ in range(crowd)))

    order = []
    for _ in range(3 * len(crowds)):
        waiter = served(queue)
        assert waiter is not None
        order.append(waiter.key)
        joined(queue, Waiter(waiter.key))
        queue.give_back(waiter.key)

    assert Counter(order) == dict.fromkeys(range(len(crowds)), 3)


def test_an_account_that_returns_takes_one_two_four_eight_and_then_all() -> None:
    ramp = Ramp()
    ramp.restart(1)
    taken = []
    for _ in range(5):
        starts = _fill(ramp)
        taken.append(len(starts))
        for start in filter(None, starts):
            start.leave()
        ramp.succeeded(1, starts[0])

    assert taken == [1, 2, 4, 8, 50]


def test_an_account_that_takes_over_doubles_what_it_has() -> None:
    ramp = Ramp()
    for _ in range(3):
        ramp.enter(1)
    ramp.ease(1)
    ramp.ease(1)

    assert ramp.admits(1)
    assert len(_fill(ramp)) == 3
    assert ramp.admits(1)
    assert not ramp.has_room(1)


def test_what_was_sent_before_a_slow_start_proves_nothing() -> None:
    ramp = Ramp()
    ramp.ease(1)
    before = ramp.take(1)
    ramp.restart(1)
    ramp.restart(1)

    assert not ramp.succeeded(1, before)
    assert not ramp.succeeded(1, None)
    (first,) = _fill(ramp)
    ramp.restart(1)
    assert not _fill(ramp)
    assert ramp.succeeded(1, first)
    ramp.restart(1)
    assert len(_fill(ramp)) == 1


def _fill(ramp: Ramp) -> list[Start | None]:
    starts: list[Start | None] = []
    while ramp.has_room(1) and len(starts) < 50:
        starts.append(ramp.take(1))
    return starts


def test_when_there_may_be_a_place_is_told_by_how_fast_they_were_left() -> None:
    now = [0.0]
    turnover = Turnover(lambda: now[0])
    turnover.left(A)
    turnover.watch([A, B])

    now[0] = 5.0
    assert turnover.estimate([A], ahead=0) == 5
    assert turnover.estimate([A], ahead=3) == 20
    for second in range(10):
        now[0] = 6.0 + second
        turnover.left(A)
    assert turnover.estimate([A], ahead=0) == 2
    assert turnover.estimate([A], ahead=9) == 15
    assert turnover.estimate([A, B], ahead=9) < 15
    now[0] = 80.0
    assert turnover.estimate([A], ahead=0) == 60
    assert turnover.estimate([C], ahead=0) == 60
    for _ in range(500):
        now[0] += 0.1
        turnover.left(A)
    assert turnover.estimate([A], ahead=0) == 1
    assert turnover.estimate([A], ahead=99) == 10
    assert turnover.estimate([A], ahead=999) == 60
