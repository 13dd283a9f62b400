"""Slow start: an account that comes back takes one request at first, then two, four, eight."""

from __future__ import annotations

from collections import Counter

FULL = 8


class Ramp:
    """Counts what each account has in flight here, and how much it should have for now."""

    def __init__(self) -> None:
        self._in_flight: Counter[int] = Counter()
        self._most: dict[int, int] = {}

    def enter(self, account: int) -> None:
        """Note that a request goes to the account."""
        self._in_flight[account] += 1

    def leave(self, account: int) -> None:
        """Note that it is over."""
        self._in_flight[account] -= 1
        if self._in_flight[account] <= 0:
            del self._in_flight[account]

    def restart(self, account: int) -> None:
        """Begin again with one request at a time: the account is out now, and will come back."""
        self._most[account] = 1

    def succeeded(self, account: int) -> None:
        """Double what the account may have; after eight it is without a limit."""
        if account in self._most:
            self._most[account] *= 2
            if self._most[account] > FULL:
                del self._most[account]

    def admits(self, account: int) -> bool:
        """Tell whether the account should get a further request."""
        return account not in self._most or self._in_flight[account] < self._most[account]

    def is_full(self, account: int, most: int | None) -> bool:
        """Tell whether the account has `most` requests in this process alone."""
        return most is not None and self._in_flight[account] >= most

    def in_flight(self, account: int) -> int:
        """Return how many requests the account has in this process."""
        return self._in_flight[account]

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self._in_flight.clear()
        self._most.clear()


ramp = Ramp()
