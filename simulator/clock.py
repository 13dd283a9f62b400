"""The time in which the simulator lives: the real one, or a moment that a test has set."""

from __future__ import annotations

import time
from email.utils import formatdate


class SettableClock:
    """Gives epoch seconds; once set it stands still until it is set again or released."""

    def __init__(self) -> None:
        self._now: float | None = None

    def __call__(self) -> float:
        """Return the time."""
        return time.time() if self._now is None else self._now

    def set(self, now: float | None) -> None:
        """Stand still at `now`; None is the real time again."""
        self._now = now


def http_date(now: float) -> str:
    """Return a time as the `date` header of an answer."""
    return formatdate(now, usegmt=True)
