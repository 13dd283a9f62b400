"""In which order accounts come: each strategy ranks the members that may serve; pure but for dice.

A rank is a group of account ids. Groups are tried in their order; within a group accounts take
turns, by a counter that goes round the group, so an id that stands in it twice gets twice as much.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from accounts.pool import Member
from providers.base import Window
from relay.load import Load

Ranks = list[list[int]]
Strategy = Callable[[Sequence[Member], Load], Ranks]

# A cycle must end; beyond this length weights are rounded.
LONGEST_CYCLE = 240
WEEK, HOURS = "7d", "5h"
WHOLE = (WEEK, HOURS)
SAME_ROOM = 0.01
SAME_TIME = timedelta(minutes=1)
NEVER = datetime.min.replace(tzinfo=UTC)


def round_robin(members: Sequence[Member], load: Load) -> Ranks:
    """All take turns."""
    return _ranks([[member.id for member in members]])


def weighted(members: Sequence[Member], load: Load) -> Ranks:
    """All take turns, each as often as it weighs."""
    return _ranks([list(_cycle(tuple((m.id, max(1, m.weight)) for m in members)))])


def priority(members: Sequence[Member], load: Load) -> Ranks:
    """Those with the lowest number take turns; the next number only when none of them can."""
    ordered = sorted(members, key=lambda member: member.priority)
    groups = itertools.groupby(ordered, key=lambda member: member.priority)
    return [[member.id for member in group] for _, group in groups]


def shuffle(members: Sequence[Member], load: Load) -> Ranks:
    """Any order is as likely as any other."""
    ids = [member.id for member in members]
    load.dice.shuffle(ids)
    return [[account] for account in ids]


def least_used(members: Sequence[Member], load: Load) -> Ranks:
    """The fewest requests in flight first, then the fewest dealt lately, then the longest idle."""

    def use(member: Member) -> tuple[int, int, datetime]:
        idle_since = member.last_used_at or NEVER
        return load.in_flight(member.id), load.dealt(member.id), idle_since

    groups = itertools.groupby(sorted(members, key=use), key=use)
    return [[member.id for member in group] for _, group in groups]


def soonest_reset(members: Sequence[Member], load: Load) -> Ranks:
    """First whose quota expires soonest and is not spent; then the unknown; then the spent.

    What expires is the weekly window, as the five-hour one comes back many times within it; that
    counts only where nothing is known of a week.
    """
    known: list[tuple[datetime, int]] = []
    unknown, spent = [], []
    for member in members:
        windows = _current(member, load.now)
        reset = _expires_at(windows)
        if any((window.utilization or 0.0) >= 1 for window in windows):
            spent.append(member.id)
        elif reset is None:
            unknown.append(member.id)
        else:
            known.append((reset, member.id))
    known.sort()
    groups: Ranks = []
    first = NEVER
    for reset, account in known:
        if groups and reset - first < SAME_TIME:
            groups[-1].append(account)
        else:
            groups.append([account])
            first = reset
    return _ranks([*map(sorted, groups), unknown, spent])


def headroom(members: Sequence[Member], load: Load) -> Ranks:
    """The most room first, in the fuller of the two windows; within one per cent is the same."""
    rooms = sorted(((_room(member, load.now), member.id) for member in members), reverse=True)
    groups: Ranks = []
    most = math.inf
    for left, account in rooms:
        # A hair more than one per cent: 0.3 - 0.29 is not 0.01 to a computer.
        if groups and most - left <= SAME_ROOM + 1e-9:
            groups[-1].append(account)
        else:
            groups.append([account])
            most = left
    return [sorted(group) for group in groups]


STRATEGIES: dict[str, Strategy] = {
    "round_robin": round_robin,
    "weighted": weighted,
    "priority": priority,
    "shuffle": shuffle,
    "least_used": least_used,
    "soonest_reset": soonest_reset,
    "headroom": headroom,
}


def order(ranks: Ranks, account: int) -> list[int]:
    """Return every account once: the chosen one, then by rank, its own group from there on."""
    ordered = [account]
    for group in ranks:
        start = group.index(account) if account in group else 0
        ordered += group[start:] + group[:start]
    return list(dict.fromkeys(ordered))


def _room(member: Member, now: datetime) -> float:
    """Return the unused fraction of the fuller whole-account window; 1.0 if nothing is known."""
    windows = _current(member, now)
    return 1.0 - max((window.utilization or 0.0 for window in windows), default=0.0)


def _current(member: Member, now: datetime) -> list[Window]:
    """Return the whole-account windows; one whose reset has passed tells nothing any more."""
    return [
        window
        for window in member.windows
        if window.name in WHOLE and (window.reset_at is None or window.reset_at > now)
    ]


def _expires_at(windows: list[Window]) -> datetime | None:
    known = {w.name: w.reset_at for w in windows if w.utilization is not None and w.reset_at}
    return known.get(WEEK) or known.get(HOURS)


@functools.lru_cache(maxsize=256)
def _cycle(weights: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Return a cycle in which each id stands as often as it weighs, spread evenly.

    Smooth weighted round robin: at each place everybody gains their weight, and whoever has most
    stands there and pays the sum.
    """
    shares = dict(_reduced(weights))
    total = sum(shares.values())
    gained = dict.fromkeys(shares, 0)
    cycle = []
    for _ in range(total):
        for account, share in shares.items():
            gained[account] += share
        chosen = max(gained, key=lambda account: gained[account])
        gained[chosen] -= total
        cycle.append(chosen)
    return tuple(cycle)


def _reduced(weights: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    total = sum(weight for _, weight in weights)
    divisor = math.gcd(*(weight for _, weight in weights)) or 1
    if total // divisor > LONGEST_CYCLE:
        scaled = [(id, max(1, round(weight * LONGEST_CYCLE / total))) for id, weight in weights]
        divisor = math.gcd(*(weight for _, weight in scaled))
        return [(id, weight // divisor) for id, weight in scaled]
    return [(id, weight // divisor) for id, weight in weights]


def _ranks(groups: Ranks) -> Ranks:
    return [group for group in groups if group]
