"""How fast places at accounts were left lately, and so when there may be one again; pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

REMEMBERED_SECONDS, REMEMBERED = 60.0, 100
# Claude Code waits for so long, and gives up what takes longer.
LONGEST = 60


@dataclass(slots=True)
class _Seen:
    """Since when an account is watched, and when places at it were left."""

    since: float
    left: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class Turnover:
    """Remembers the last minute of each account that somebody had to wait for."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[int, _Seen] = {}

    def watch(self, accounts: Iterable[int]) -> None:
        """Begin to watch accounts."""
        for account in accounts:
            self._seen.setdefault(account, _Seen(self._clock()))

    def left(self, account: int) -> None:
        """Note that a place was left, if the account is watched."""
        if (seen := self._seen.get(account)) is not None:
            seen.left.append(self._clock())

    def estimate(self, accounts: Iterable[int], ahead: int) -> int:
        """Return in how many seconds whoever comes behind `ahead` others may get a place."""
        pace = sum(map(self._pace, accounts))
        return max(1, min(math.ceil((ahead + 1) / pace), LONGEST)) if pace else LONGEST

    def _pace(self, account: int) -> float:
        """Return how many places were left a second; one that nobody left yet may be next."""
        seen, now = self._seen.get(account), self._clock()
        if seen is None:
            return 0.0
        since = max(seen.since, now - REMEMBERED_SECONDS)
        if len(seen.left) == REMEMBERED:
            since = max(since, seen.left[0])
        count = sum(at >= since for at in seen.left)
        return max(1, count) / max(0.1, now - since)
