"""What the pool has left of each window of its plans, as the overview shows it; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from accounts.cards import WINDOWS
from proxy_project.statistics import PoolWindowOut


@dataclass(frozen=True, slots=True)
class Room:
    """One window over all accounts; `left` of `of` in Pro plans, `share` the same as a fraction."""

    label: str
    left: float
    of: int
    unknown: int
    is_used: bool
    runs_out_at: datetime | None

    @property
    def share(self) -> float:
        """How much is left, between 0 and 1."""
        return min(max(self.left / self.of, 0.0), 1.0) if self.of else 0.0

    @property
    def percent(self) -> int:
        """How much is left, in percent; a little is never called nothing."""
        return round(100 * self.share) or int(self.left > 0)

    @property
    def value(self) -> str:
        """How much is left, as a bar's value."""
        return f"{self.share:.3f}"


def rooms(pool: Iterable[PoolWindowOut]) -> list[Room]:
    """Return the windows of which anything is known, or could be."""
    return [
        Room(
            label=WINDOWS.get(window.name, window.name),
            left=window.headroom,
            of=window.of,
            unknown=window.unknown,
            is_used=window.rate_per_hour > 0,
            runs_out_at=window.runs_out_at,
        )
        for window in pool
        if window.of or window.unknown
    ]
