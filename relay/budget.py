"""How many retries this process may spend: a share of its requests, so they cannot storm."""

from __future__ import annotations

import time
from collections.abc import Callable

# A retry costs what ten requests bring; what ten retries cost is the most that is saved.
COST, LARGEST = 10, 100
# A quiet relay has saved up nothing and may still try again.
PER_SECOND = 3


class Budget:
    """A bucket of retries: a tenth of one comes with each request, at most ten are kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Begin with a full bucket."""
        self._saved = LARGEST
        self._second, self._spent = 0, 0

    def earn(self) -> None:
        """Add what one request brings."""
        self._saved = min(LARGEST, self._saved + 1)

    def spend(self) -> bool:
        """Take one retry; False when there is none."""
        if self._saved >= COST:
            self._saved -= COST
            return True
        second = int(self._clock())
        if second != self._second:
            self._second, self._spent = second, 0
        self._spent += 1
        return self._spent <= PER_SECOND


budget = Budget()
