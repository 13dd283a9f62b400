"""How long to wait before a further try: exponential, with full jitter; pure but for the dice.

A wait that outlives the process (a refresh, a poll, a webhook) is stored as a time and not slept
through, which is why no library that sleeps does this.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

SHORTEST = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """Ceilings of the wait in seconds: `first` after one failure, doubling up to `longest`."""

    first: float
    longest: float

    def ceiling(self, failures: int) -> float:
        """Return the longest wait after so many failures in a row (1 for the first one)."""
        return min(self.first * 2.0 ** min(max(failures, 1) - 1, 30), self.longest)

    def wait(
        self,
        failures: int,
        *,
        at_least: float = 0.0,
        dice: Callable[[float, float], float] = random.uniform,
    ) -> float:
        """Return the seconds to wait: anything up to the ceiling, and never less than was asked."""
        return max(dice(0.0, self.ceiling(failures)), at_least, SHORTEST)
