"""In which order accounts come under each strategy: tables of members, and what always holds."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts.pool import Member
from accounts.states import Kind, Status
from providers.base import Window
from proxy_project.config import Strategy
from relay import strategies
from relay.load import PERIOD, Dealt, Load
from relay.strategies import LONGEST_CYCLE, STRATEGIES, order
from sessions_limit.turns import Turns

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def member(id: int, **fields: Any) -> Member:
    plain = Member(
        id, f"account {id}", Kind.OAUTH, Status.ACTIVE, None, None, None, UUID(int=id), ""
    )
    return replace(plain, **fields)


def week(utilization: float | None, reset: timedelta | None, name: str = "7d") -> Window:
    return Window(name, "allowed", utilization, None if reset is None else NOW + reset)


def rank(name: str, *members: Member, **load: Any) -> list[list[int]]:
    return STRATEGIES[name](members, Load(NOW, **load))


def test_every_strategy_of_the_settings_is_there() -> None:
    assert set(STRATEGIES) == set(get_args(Strategy))


def test_round_robin_lets_all_take_turns() -> None:
    assert rank("round_robin", member(1), member(2), member(3)) == [[1, 2, 3]]


def test_priority_groups_by_number_lowest_first() -> None:
    members = [member(1, priority=50), member(2, priority=1), member(3, priority=50), member(4)]

    assert rank("priority", *members) == [[2], [1, 3, 4]]


@pytest.mark.parametrize(
    ("weights", "cycle"),
    [
        ((1, 1, 1), [1, 2, 3]),
        ((2, 2, 4), [3, 1, 2, 3]),
        ((5, 1, 1), [1, 1, 2, 1, 3, 1, 1]),
        ((7,), [1]),
    ],
)
def test_weighted_spreads_a_weight_over_its_cycle(
    weights: tuple[int, ...], cycle: list[int]
) -> None:
    members = [member(id, weight=weight) for id, weight in enumerate(weights, 1)]

    assert rank("weighted", *members) == [cycle]


@given(st.lists(st.integers(1, 32767), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_a_cycle_of_weights_is_short_fair_and_forgets_nobody(weights: list[int]) -> None:
    members = [member(id, weight=weight) for id, weight in enumerate(weights)]

    (cycle,) = rank("weighted", *members)

    counts = Counter(cycle)
    assert set(counts) == set(range(len(weights)))
    assert len(cycle) <= LONGEST_CYCLE + len(weights)
    for id, weight in enumerate(weights):
        # Rounding moves a share by less than one place, and what is rounded up to one place.
        assert abs(counts[id] / len(cycle) - weight / sum(weights)) < (len(weights) + 1) / len(
            cycle
        )


def test_shuffle_throws_the_dice() -> None:
    members = [member(id) for id in range(4)]
    firsts = Counter(
        rank("shuffle", *members, dice=random.Random(seed))[0][0] for seed in range(400)
    )

    ranks = rank("shuffle", *members, dice=random.Random(1))

    assert sorted(ranks) == [[0], [1], [2], [3]]
    assert set(firsts) == {0, 1, 2, 3}
    assert min(firsts.values()) > 60


@pytest.mark.parametrize(
    ("in_flight", "dealt", "used", "ranks"),
    [
        ((0, 0, 0), (0, 0, 0), (None, None, None), [[1, 2, 3]]),
        ((2, 0, 1), (0, 9, 0), (None, None, None), [[2], [3], [1]]),
        ((0, 0, 0), (3, 1, 3), (None, None, None), [[2], [1, 3]]),
        ((0, 0, 0), (1, 1, 1), (2, 5, None), [[3], [2], [1]]),
        ((1, 1, 0), (0, 0, 9), (3, 3, 1), [[3], [1, 2]]),
    ],
)
def test_least_used_looks_at_flight_then_turns_then_rest(
    in_flight: tuple[int, ...],
    dealt: tuple[int, ...],
    used: tuple[int | None, ...],
    ranks: list[list[int]],
) -> None:
    members = [
        member(id, last_used_at=None if hours is None else NOW - hours * HOUR)
        for id, hours in enumerate(used, 1)
    ]

    ranked = rank(
        "least_used",
        *members,
        in_flight=lambda account: in_flight[account - 1],
        dealt=lambda account: dealt[account - 1],
    )

    assert ranked == ranks


@pytest.mark.parametrize(
    ("windows", "ranks"),
    [
        # The week that ends first, whatever its five hours say.
        ({1: [week(0.2, 3 * DAY)], 2: [week(0.9, DAY), week(0.9, HOUR, "5h")]}, [[2], [1]]),
        # Less than a minute apart is the same time.
        ({1: [week(0.2, DAY)], 2: [week(0.9, DAY + timedelta(seconds=50))]}, [[1, 2]]),
        # Unknown comes behind known, spent behind unknown.
        ({1: [], 2: [week(1.0, HOUR)], 3: [week(0.5, 6 * DAY)]}, [[3], [1], [2]]),
        ({1: [week(None, HOUR)], 2: [week(0.5, None)], 3: [week(0.5, DAY)]}, [[3], [1, 2]]),
        # What expired already is unknown again, even if it was spent.
        ({1: [week(1.0, -HOUR)], 2: [week(0.5, DAY)]}, [[2], [1]]),
        # A spent window of five hours leaves nothing to spend now.
        ({1: [week(0.1, HOUR), week(1.0, HOUR, "5h")], 2: [week(0.5, DAY)]}, [[2], [1]]),
        # Five hours count where no week is known; windows of a family never do.
        ({1: [week(0.1, 2 * HOUR, "5h")], 2: [week(0.1, HOUR, "7d_opus")]}, [[1], [2]]),
    ],
)
def test_soonest_reset_spends_what_expires_first(
    windows: dict[int, list[Window]], ranks: list[list[int]]
) -> None:
    members = [member(id, windows=tuple(known)) for id, known in windows.items()]

    assert rank("soonest_reset", *members) == ranks


@pytest.mark.parametrize(
    ("windows", "ranks"),
    [
        ({1: [week(0.6, DAY)], 2: [week(0.2, DAY)]}, [[2], [1]]),
        # The fuller window counts.
        ({1: [week(0.1, DAY), week(0.9, HOUR, "5h")], 2: [week(0.5, DAY)]}, [[2], [1]]),
        # Within one per cent is the same, counted from the best of a group.
        ({1: [week(0.71, DAY)], 2: [week(0.70, DAY)], 3: [week(0.72, DAY)]}, [[1, 2], [3]]),
        # What is unknown, or over, is unused.
        ({1: [week(0.3, DAY)], 2: [], 3: [week(1.0, -HOUR)]}, [[2, 3], [1]]),
        ({1: [week(None, DAY)], 2: [week(0.3, DAY, "7d_opus")]}, [[1, 2]]),
        ({1: [week(1.3, DAY)], 2: [week(1.0, DAY)]}, [[2], [1]]),
    ],
)
def test_headroom_puts_the_emptiest_first(
    windows: dict[int, list[Window]], ranks: list[list[int]]
) -> None:
    members = [member(id, windows=tuple(known)) for id, known in windows.items()]

    assert rank("headroom", *members) == ranks


MEMBERS = st.lists(
    st.builds(
        lambda priority, weight, used, reset: {
            "priority": priority,
            "weight": weight,
            "windows": (week(used, reset),),
        },
        st.integers(0, 3),
        st.integers(0, 5),
        st.none() | st.floats(0, 1.5),
        st.none() | st.timedeltas(-DAY, 7 * DAY),
    ),
    max_size=8,
)


@given(st.sampled_from(sorted(STRATEGIES)), MEMBERS, st.data())
@settings(max_examples=100, deadline=None)
def test_every_strategy_ranks_everybody_in_one_group(
    name: str, given_members: list[dict[str, Any]], data: st.DataObject
) -> None:
    members = [member(id, **fields) for id, fields in enumerate(given_members)]
    flight = data.draw(st.lists(st.integers(0, 3), min_size=8, max_size=8))

    ranks = rank(name, *members, in_flight=lambda account: flight[account])

    groups = [set(group) for group in ranks]
    assert all(groups)
    assert sum(map(len, groups)) == len(members)
    assert set().union(*groups) == set(range(len(members)))
    for account in range(len(members)):
        ordered = order(ranks, account)
        assert ordered[0] == account
        assert sorted(ordered) == list(range(len(members)))


def test_the_order_goes_round_the_own_group_and_then_by_rank() -> None:
    ranks = [[1, 2, 3], [4, 5], [6]]

    assert order(ranks, 2) == [2, 3, 1, 4, 5, 6]
    assert order(ranks, 5) == [5, 1, 2, 3, 4, 6]
    assert order([[1, 2, 1, 3]], 2) == [2, 1, 3]


@given(st.integers(1, 9), st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=50, deadline=None)
def test_equal_accounts_differ_by_at_most_one_over_any_run(
    accounts: int, before: int, length: int
) -> None:
    members = [member(id) for id in range(accounts)]
    turns = Turns()

    dealt = [turns.next(rank("round_robin", *members)[0]) for _ in range(before + length)]

    counts = Counter(dict.fromkeys(range(accounts), 0)) + Counter()
    counts.update(dealt[before:])
    values = [counts[id] for id in range(accounts)]
    assert max(values) - min(values) <= 1


@given(st.lists(st.frozensets(st.integers(0, 5), min_size=1), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_nobody_starves_when_groups_alternate(groups: list[frozenset[int]]) -> None:
    turns, dealt = Turns(), Counter[tuple[int, int]]()
    rounds = 60

    for _ in range(rounds):
        for number, group in enumerate(groups):
            dealt[number, turns.next(sorted(group))] += 1

    for group in set(groups):
        numbers = [number for number, other in enumerate(groups) if other == group]
        counts = [sum(dealt[number, account] for number in numbers) for account in group]
        assert max(counts) - min(counts) <= 1


def test_groups_that_are_always_new_do_not_all_begin_with_the_same_account() -> None:
    turns, dice = Turns(), random.Random(7)
    dealt = Counter[int]()

    for _ in range(3000):
        group = sorted(dice.sample(range(12), 9))
        dealt[turns.next(group)] += 1

    assert set(dealt) == set(range(12))
    assert max(dealt.values()) < 1.5 * min(dealt.values())


def test_what_was_dealt_is_forgotten_after_a_while() -> None:
    clock = [1000.0]
    dealt = Dealt(lambda: clock[0])
    dealt.note(1)

    clock[0] += PERIOD
    dealt.note(1)
    assert dealt.count(1) == 2
    clock[0] += PERIOD
    assert dealt.count(1) == 1
    clock[0] += 2 * PERIOD
    assert dealt.count(1) == 0


def test_what_is_being_dealt_counts_until_it_is() -> None:
    dealt = Dealt()

    with dealt.expecting(1), dealt.expecting(1):
        assert dealt.expected(1) == 2

    assert dealt.expected(1) == 0


def test_a_cycle_is_worked_out_once() -> None:
    members = [member(id, weight=id + 1) for id in range(5)]
    strategies._cycle.cache_clear()

    for _ in range(10):
        rank("weighted", *members)

    assert strategies._cycle.cache_info().misses == 1
