"""A sliding minute made of two counters: this minute, and what is left of the one before; pure."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE = 60.0
# So that whoever comes back at the told moment is not refused by the last digit of a fraction.
MARGIN = 0.05


@dataclass(frozen=True, slots=True)
class Count:
    """What was counted `now` and in the minute `before`; `elapsed` seconds of this one are over."""

    before: float = 0
    now: float = 0
    elapsed: float = 0.0

    def wait(self, limit: int | None) -> float:
        """Return the seconds until one more is within `limit` a minute; 0.0 if it is at once."""
        if limit is None or self.used + 1 <= limit:
            return 0.0
        if limit < 1:
            # It never is; whoever comes back is told the same.
            return MINUTE
        free = limit - 1
        if self.now <= free:
            # The minute before fades until it takes no more than this one leaves.
            faded = MINUTE * (1 - (free - self.now) / self.before)
            return faded - self.elapsed + MARGIN
        return MINUTE - self.elapsed + MINUTE * (1 - free / self.now) + MARGIN

    @property
    def used(self) -> float:
        """What counts as used in the last minute, as if the one before had been even."""
        return self.before * (1 - self.elapsed / MINUTE) + self.now


class Minutes:
    """The two counters of this process, by name."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int, int]] = {}

    def add(self, name: str, number: int, now: float) -> None:
        """Count `number` at `now` (seconds of any clock that only goes forward)."""
        minute, before, counted = self._at(name, now)
        self._counts[name] = minute, before, counted + number

    def count(self, name: str, now: float) -> Count:
        """Return what is counted under a name."""
        _, before, counted = self._at(name, now)
        return Count(before, counted, now % MINUTE)

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self._counts.clear()

    def _at(self, name: str, now: float) -> tuple[int, int, int]:
        this = int(now // MINUTE)
        minute, before, counted = self._counts.get(name, (this, 0, 0))
        if minute == this:
            return this, before, counted
        return this, counted if minute == this - 1 else 0, 0
