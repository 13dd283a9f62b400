"""Slow start: an account that returns takes one request at first, then two, four, eight.

One that has to take over from another, which just fell out, is eased into it in the same way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

# What was served that often at once needs no care any more.
FULL = 8


@dataclass(slots=True)
class Start:
    """A slow start that is under way: how many places of its own time it has, and may have."""

    most: int
    full: int
    is_return: bool
    places: int = 0

    def leave(self) -> None:
        """Count a place out that was taken in this start."""
        self.places -= 1


class Ramp:
    """Counts what each account has in flight here, and how much more it should get for now.

    What an account had already when its slow start began does not count against it.
    """

    def __init__(self) -> None:
        self._in_flight: Counter[int] = Counter()
        self._starts: dict[int, Start] = {}

    def enter(self, account: int) -> None:
        """Note that a request goes to the account."""
        self._in_flight[account] += 1

    def leave(self, account: int) -> None:
        """Note that it is over."""
        self._in_flight[account] -= 1
        if self._in_flight[account] <= 0:
            del self._in_flight[account]

    def in_flight(self, account: int) -> int:
        """Return how many requests the account has in this process."""
        return self._in_flight[account]

    def is_full(self, account: int, most: int | None) -> bool:
        """Tell whether the account has `most` requests in this process alone."""
        return most is not None and self._in_flight[account] >= most

    def restart(self, account: int) -> None:
        """Begin again with one request at a time: the account is out now, and will come back."""
        start = self._starts.get(account)
        if start is None or not start.is_return or start.most > 1:
            self._starts[account] = Start(1, FULL, is_return=True)

    def begin(self, account: int) -> None:
        """Begin with one request at a time, unless a start is under way: the account is back."""
        if account not in self._starts:
            self.restart(account)

    def ease(self, account: int) -> None:
        """Let the account have twice what it has at first: others' sessions come to it at once."""
        if account not in self._starts:
            most = max(1, self._in_flight[account])
            self._starts[account] = Start(most, max(most, FULL), is_return=False)

    def take(self, account: int) -> Start | None:
        """Count a place at the account; return the start in which it was taken, if there is one."""
        start = self._starts.get(account)
        if start is not None:
            start.places += 1
        return start

    def succeeded(self, account: int, start: Start | None) -> bool:
        """Double what the account may have, and tell whether that is news.

        Only a request that was sent in the start that is under way proves anything.
        """
        if start is None or self._starts.get(account) is not start:
            return False
        start.most *= 2
        if start.most > start.full:
            del self._starts[account]
        return True

    def admits(self, account: int) -> bool:
        """Tell whether others are not to be preferred to an account that has just returned."""
        start = self._starts.get(account)
        return start is None or not start.is_return or start.places < start.most

    def has_room(self, account: int) -> bool:
        """Tell whether the account should get a further request now."""
        start = self._starts.get(account)
        return start is None or start.places < start.most

    def is_starting(self, account: int) -> bool:
        """Tell whether a slow start is under way."""
        return account in self._starts

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self._in_flight.clear()
        self._starts.clear()


ramp = Ramp()
