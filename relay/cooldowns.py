"""Until when an answer keeps an account out; pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from providers.base import WHOLE_ACCOUNT, Limits
from relay.signs import LONGEST_COOLDOWN, rejected
from relay.verdicts import Effect, Row

UNKNOWN_LIMIT = timedelta(minutes=5)
BILLING = timedelta(hours=1)
MORE_THAN_A_MONTH = timedelta(days=32)
PROXY_REST, LONGEST_PROXY_REST = timedelta(seconds=30), timedelta(minutes=5)


def limited_until(row: Row, limits: Limits, now: datetime) -> datetime:
    """Return when an account benched by `row` may be used again.

    A spent window ends at its own reset; the reset and retry-after of the whole answer may belong
    to another window and count only when no spent window names one.
    """
    match row.effect:
        case Effect.BILLING:
            return now + BILLING
        case Effect.SPEND_CAP:
            month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            return (month + MORE_THAN_A_MONTH).replace(day=1)
        case Effect.COOL_DOWN:
            return min(_told(limits, now) or now + timedelta(seconds=1), now + LONGEST_COOLDOWN)
    spent = rejected(limits)
    whole = spent & WHOLE_ACCOUNT
    decisive = whole if row.effect is Effect.LIMIT and whole else spent
    resets = [w.reset_at for w in limits.windows if w.name in decisive and w.reset_at is not None]
    return max(resets, default=None) or limits.reset_at or _told(limits, now) or now + UNKNOWN_LIMIT


def _told(limits: Limits, now: datetime) -> datetime | None:
    if limits.retry_after is not None:
        return now + timedelta(seconds=limits.retry_after)
    return limits.classic_spent_until


class Detours:
    """How long accounts whose proxy fails stay out: 30 s, 60 s ... 5 min, until it works again."""

    def __init__(self) -> None:
        self._rests: dict[int, tuple[int, datetime]] = {}

    def next(self, account: int, now: datetime) -> datetime:
        """Return when an account whose proxy just failed may be tried again.

        Requests that fail together count once.
        """
        times, until = self._rests.get(account, (0, now))
        if until <= now:
            times += 1
            until = now + min(PROXY_REST * times, LONGEST_PROXY_REST)
            self._rests[account] = (times, until)
        return until

    def forgive(self, account: int) -> None:
        """Forget an account's failures: a request came through."""
        self._rests.pop(account, None)

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self._rests.clear()


detours = Detours()
