"""What this process saw fail: accounts that fail alone rest, and a failing upstream is spared."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

FAILURES, WITHIN = 5, 60.0
REST, LONGEST_REST, JITTER = 30.0, 300.0, 0.2
LARGEST_SHARE = 0.5

MINUTES_SEEN = 120.0
TOLERANCE = 2.0
FEWEST_SEEN = 10
# Refusing this much is as good as closed: then every success counts double.
CLOSED = 0.8
DISCONNECTIONS = 10
PROBE_SECONDS = 1.0


@dataclass(slots=True)
class _Record:
    """One account's failures in a row, its last success, and how often it rested in a row."""

    failures: deque[float] = field(default_factory=deque)
    succeeded_at: float = float("-inf")
    rests: int = 0
    rests_until: float = float("-inf")


class AccountBreaker:
    """Rests an account that fails five times in a row within a minute in which another succeeds.

    If all fail it is not the accounts; and never more than half of them rest at a time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[int, _Record] = {}

    def succeeded(self, account: int) -> None:
        """Note a success: the failures in a row are over, and in time so is what rests left."""
        record, now = self._record(account), self._clock()
        record.failures.clear()
        if now - record.rests_until > WITHIN:
            record.rests = max(0, record.rests - 1)
            record.rests_until = now
        record.succeeded_at = now

    def failed(self, account: int, pool: Collection[int]) -> float | None:
        """Note a failure; return for how many seconds the account must rest now, if it must.

        `pool` are the accounts that could serve.
        """
        record, now = self._record(account), self._clock()
        record.failures.append(now)
        while now - record.failures[0] > WITHIN or len(record.failures) > FAILURES:
            record.failures.popleft()
        if len(record.failures) < FAILURES or not self._is_alone(account, now):
            return None
        resting = sum(self._record(other).rests_until > now for other in pool)
        if resting + 1 > LARGEST_SHARE * len(pool):
            return None
        record.failures.clear()
        record.rests += 1
        seconds = min(REST * record.rests, LONGEST_REST) * random.uniform(1 - JITTER, 1 + JITTER)
        record.rests_until = now + seconds
        return seconds

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self._records.clear()

    def _is_alone(self, account: int, now: float) -> bool:
        return any(
            other != account and now - record.succeeded_at <= WITHIN
            for other, record in self._records.items()
        )

    def _record(self, account: int) -> _Record:
        return self._records.setdefault(account, _Record())


class HostBreaker:
    """Spares an upstream that fails for everybody: what it would refuse anyway is refused here.

    The share refused follows (requests - 2 x accepted) / (requests + 1) of the last two minutes;
    after ten failures to connect in a row it is everything. One request a second always passes,
    and while next to nothing passes each success halves the failures that are remembered. A
    handful of requests proves nothing.
    Source of the formula: "Handling Overload", Site Reliability Engineering, 2016.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._chance = clock, chance
        self.reset()

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self._seen: deque[tuple[float, bool]] = deque()
        self._accepted = 0
        self._disconnections = 0
        self._probed_at = float("-inf")

    def admits(self) -> bool:
        """Tell whether a request may go to the upstream now."""
        return not self.refuses() or self.takes_turn()

    def refuses(self) -> bool:
        """Tell whether a request is of the share that the upstream is spared."""
        self._forget(self._clock())
        return self._chance() < self._refused_share()

    def has_turn(self) -> bool:
        """Tell whether the request that always passes has not been sent in this second."""
        return self._clock() - self._probed_at >= PROBE_SECONDS

    def takes_turn(self) -> bool:
        """Take the turn of that request, for one that really goes to the upstream."""
        if not self.has_turn():
            return False
        self._probed_at = self._clock()
        return True

    def is_closed(self) -> bool:
        """Tell whether next to nothing may pass now; unlike `admits`, it takes nobody's turn."""
        self._forget(self._clock())
        return self._refused_share() > CLOSED

    def saw(self, *, accepted: bool, connected: bool = True) -> None:
        """Note how an attempt ended, as far as the upstream as a whole is to blame."""
        if accepted and self._refused_share() > CLOSED:
            self._halve_failures()
        self._seen.append((self._clock(), accepted))
        self._accepted += accepted
        self._disconnections = 0 if connected else self._disconnections + 1

    def _refused_share(self) -> float:
        if self._disconnections >= DISCONNECTIONS:
            return 1.0
        requests = len(self._seen)
        if requests < FEWEST_SEEN:
            return 0.0
        return max(0.0, (requests - TOLERANCE * self._accepted) / (requests + 1))

    def _halve_failures(self) -> None:
        drop = (len(self._seen) - self._accepted + 1) // 2
        kept: deque[tuple[float, bool]] = deque()
        for at, accepted in self._seen:
            if accepted or drop <= 0:
                kept.append((at, accepted))
            else:
                drop -= 1
        self._seen = kept

    def _forget(self, now: float) -> None:
        while self._seen and now - self._seen[0][0] > MINUTES_SEEN:
            self._accepted -= self._seen.popleft()[1]
        if not self._seen:
            self._disconnections = 0


class KeyBreaker:
    """Pauses a key whose requests have harmed accounts five times in a minute.

    A poisoned request that its client repeats could otherwise walk through the whole pool.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._touches: dict[int, deque[float]] = {}

    def touched(self, key: int) -> None:
        """Note that a request of this key made an upstream refuse an account."""
        self._touches.setdefault(key, deque(maxlen=FAILURES)).append(self._clock())

    def pause(self, key: int) -> float:
        """Return for how many seconds the key must wait; 0 when it need not."""
        touches, now = self._touches.get(key), self._clock()
        if touches is None or len(touches) < FAILURES or touches[-1] - touches[0] > WITHIN:
            return 0.0
        rest = touches[-1] + WITHIN - now
        if rest <= 0:
            del self._touches[key]
        return max(0.0, rest)

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self._touches.clear()


accounts = AccountBreaker()
host = HostBreaker()
keys = KeyBreaker()


def reset() -> None:
    """Forget everything that this process saw (for tests)."""
    accounts.reset()
    host.reset()
    keys.reset()
