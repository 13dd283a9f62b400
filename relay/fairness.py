"""Who waits for a place at which accounts, and who is next: fair between keys; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

# So many may wait for anything, and no more than that in a process.
FEWEST, MOST = 16, 1000


class Waits(Protocol):
    """Whoever waits: of which key, and for which accounts, the best first."""

    wanted: tuple[int, ...]

    @property
    def key(self) -> int:
        """Whose it is."""


W = TypeVar("W", bound=Waits)


@dataclass(slots=True)
class _Line(Generic[W]):
    """Those of one key in the order in which they came, and since when none of them was served."""

    since: int
    waiting: dict[W, int] = field(default_factory=dict)


class Queue(Generic[W]):
    """The keys that wait, each with its line, and what each of them holds already.

    A free place goes to the key with the fewest places (max-min fairness), among equals to the one
    that has gone without for longest, and within a key to whoever came first. Accounts that nobody
    in front wants are free for those behind.
    """

    def __init__(self) -> None:
        self.held: Counter[int] = Counter()
        self._lines: dict[int, _Line[W]] = {}
        self._wanted: Counter[int] = Counter()
        self._groups: Counter[frozenset[int]] = Counter()
        self._numbers = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return sum(self._groups.values())

    def __iter__(self) -> Iterator[W]:
        """Go through all that wait, key by key."""
        return (waiter for line in list(self._lines.values()) for waiter in list(line.waiting))

    def __contains__(self, waiter: W) -> bool:
        """Tell whether it waits."""
        line = self._lines.get(waiter.key)
        return line is not None and waiter in line.waiting

    def is_wanted(self, account: int) -> bool:
        """Tell whether anybody waits for a place at the account."""
        return account in self._wanted

    @property
    def wanted(self) -> Collection[int]:
        """The accounts for which anybody waits."""
        return self._wanted.keys()

    def rivals(self, accounts: Collection[int]) -> int:
        """Return how many wait for any of these accounts."""
        return sum(n for group, n in self._groups.items() if not group.isdisjoint(accounts))

    def join(self, waiter: W, room: int) -> W | None:
        """Let a waiter in; return who gives way for it if all is full, which may be itself.

        `room` is how many may wait for the accounts that it wants. The newest of the key with the
        most waiters gives way, so no key fills the room alone.
        """
        leaving = None
        if self.rivals(waiter.wanted) >= max(FEWEST, min(room, MOST)):
            wanted = frozenset(waiter.wanted)
            leaving = self._giving_way(waiter, [w for w in self if wanted & set(w.wanted)])
        elif len(self) >= MOST:
            leaving = self._giving_way(waiter, list(self))
        if leaving is waiter:
            return waiter
        if leaving is not None:
            self.leave(leaving)
        self._numbers += 1
        line = self._lines.setdefault(waiter.key, _Line(self._numbers))
        line.waiting[waiter] = self._numbers
        self._count(waiter, 1)
        return leaving

    def leave(self, waiter: W) -> None:
        """Let a waiter go, if it waits."""
        if waiter not in self:
            return
        line = self._lines[waiter.key]
        del line.waiting[waiter]
        if not line.waiting:
            del self._lines[waiter.key]
        self._count(waiter, -1)

    def want(self, waiter: W, wanted: tuple[int, ...]) -> None:
        """Change what a waiter wants; it keeps its turn."""
        if waiter in self:
            self._count(waiter, -1)
            waiter.wanted = wanted
            self._count(waiter, 1)

    def next(self, closed: Collection[int]) -> W | None:
        """Return who gets the next place at an account that is not `closed`, or None."""
        if self._wanted.keys() <= set(closed):
            return None
        for key in sorted(self._lines, key=self._turn):
            for waiter in self._lines[key].waiting:
                if any(account not in closed for account in waiter.wanted):
                    return waiter
        return None

    def serve(self, waiter: W) -> None:
        """Note that a waiter got its place: its key's turn is over."""
        self._numbers += 1
        self._lines[waiter.key].since = self._numbers
        self.leave(waiter)

    def take(self, key: int) -> None:
        """Count a place that a key holds."""
        self.held[key] += 1

    def give_back(self, key: int) -> None:
        """Count it out."""
        self.held[key] -= 1
        if self.held[key] <= 0:
            del self.held[key]

    def _turn(self, key: int) -> tuple[int, int]:
        return self.held[key], self._lines[key].since

    def _giving_way(self, newcomer: W, among: list[W]) -> W:
        counts = Counter(waiter.key for waiter in among)
        counts[newcomer.key] += 1
        most = max(counts.values())
        if counts[newcomer.key] == most:
            return newcomer
        crowd = (waiter for waiter in among if counts[waiter.key] == most)
        return max(crowd, key=lambda waiter: self._lines[waiter.key].waiting[waiter])

    def _count(self, waiter: W, by: int) -> None:
        group = frozenset(waiter.wanted)
        self._groups[group] += by
        if not self._groups[group]:
            del self._groups[group]
        for account in group:
            self._wanted[account] += by
            if not self._wanted[account]:
                del self._wanted[account]
