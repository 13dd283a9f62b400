"""How busy the accounts are as this process knows it: what a strategy may look at."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

PERIOD = 300.0


@dataclass(frozen=True, slots=True)
class Load:
    """A view of one moment: requests in flight, requests dealt lately, and the dice to throw."""

    now: datetime
    in_flight: Callable[[int], int] = lambda account: 0
    dealt: Callable[[int], int] = lambda account: 0
    dice: random.Random = field(default_factory=random.Random)


class Dealt:
    """Counts what each account was dealt in the last five to ten minutes, and is about to get."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._expected: Counter[int] = Counter()
        self._now: Counter[int] = Counter()
        self._before: Counter[int] = Counter()
        self._since = clock()

    def note(self, account: int) -> None:
        """Note that a request was dealt to the account."""
        self._turn_over()
        self._now[account] += 1

    def count(self, account: int) -> int:
        """Return how many requests it was dealt lately."""
        self._turn_over()
        return self._now[account] + self._before[account]

    @contextlib.contextmanager
    def expecting(self, account: int) -> Iterator[None]:
        """Count a request for the account while Redis is asked whose it is.

        Of sessions that begin at the same moment each would else see the same idle account.
        """
        self._expected[account] += 1
        try:
            yield
        finally:
            self._expected[account] -= 1
            if not self._expected[account]:
                del self._expected[account]

    def expected(self, account: int) -> int:
        """Return how many requests are being dealt to it just now."""
        return self._expected[account]

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self._expected.clear()
        self._now.clear()
        self._before.clear()

    def _turn_over(self) -> None:
        periods = int((self._clock() - self._since) / PERIOD)
        if periods:
            self._before = self._now if periods == 1 else Counter()
            self._now = Counter()
            self._since += periods * PERIOD


dealt = Dealt()
