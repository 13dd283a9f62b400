"""What this process itself holds against accounts, until the database knows it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

# The snapshot of the pool is at most this old; by then it says itself what was learnt.
UNTIL_KNOWN = timedelta(seconds=5)
LACKING = timedelta(hours=1)
REMEMBERED = 10_000
PENALTIES = (5, 10, 20, 40, 80, 160, 300)
FAMILY = re.compile(r"(opus|sonnet|haiku|fable|mythos)")


class Bench:
    """Holds and penalties by account; a hold may be for one family of models only."""

    def __init__(self) -> None:
        self._holds: dict[tuple[int, str], datetime] = {}
        self._penalties: dict[int, tuple[int, datetime]] = {}
        self._lacks: dict[tuple[int, str], datetime] = {}
        self._serves: set[tuple[int, str]] = set()
        self._deferrals: dict[tuple[int, str], datetime] = {}
        self._leaving: dict[int, datetime] = {}

    def hold(self, account: int, until: datetime, model: str = "") -> None:
        """Keep an account out until `until`, for one model's family or for all."""
        key = (account, family(model))
        self._holds[key] = max(until, self._holds.get(key, until))

    def held_until(self, account: int, model: str, now: datetime) -> datetime | None:
        """Return when the account may be used for `model` again; None if it may now."""
        holds = (self._holds.get((account, name)) for name in {"", family(model)})
        return max((hold for hold in holds if hold and hold > now), default=None)

    def leave(self, account: int, until: datetime) -> None:
        """Keep an account out that leaves the pool; by `until` the pool says so itself."""
        self._leaving[account] = until
        self.hold(account, until)

    def is_leaving(self, account: int, now: datetime) -> bool:
        """Tell whether it has just left; whatever else it is held for says nothing."""
        until = self._leaving.get(account)
        return until is not None and until > now

    def lacks(self, account: int, model: str, now: datetime) -> None:
        """Put an account last for a family of models that it was not permitted to use."""
        key = (account, family(model))
        self._serves.discard(key)
        # Names of models come from clients: what is remembered of them must have an end.
        if len(self._lacks) >= REMEMBERED:
            self._lacks = {known: until for known, until in self._lacks.items() if until > now}
        if len(self._lacks) < REMEMBERED:
            self._lacks[key] = now + LACKING

    def is_lacking(self, account: int, model: str, now: datetime) -> bool:
        """Tell whether an account was refused a family of models in the last hour."""
        until = self._lacks.get((account, family(model)))
        return until is not None and until > now

    def has_served(self, account: int, model: str) -> None:
        """Note that an account was permitted to use a family of models."""
        key = (account, family(model))
        self._lacks.pop(key, None)
        if len(self._serves) < REMEMBERED:
            self._serves.add(key)

    def serves(self, account: int, model: str) -> bool:
        """Tell whether an account is known to serve a family of models."""
        return (account, family(model)) in self._serves

    def defer(self, account: int, until: datetime, model: str = "") -> None:
        """Put an account last until `until`, for one model's family or for all."""
        key = (account, family(model))
        self._deferrals[key] = max(until, self._deferrals.get(key, until))

    def is_deferred(self, account: int, model: str, now: datetime) -> bool:
        """Tell whether others are to be preferred to an account that could serve."""
        ends = (self._deferrals.get((account, name)) for name in {"", family(model)})
        return any(end is not None and end > now for end in ends)

    def penalise(self, account: int, now: datetime) -> None:
        """Put an account last for 5 s, 10 s ... 300 s; once per window, not once per failure."""
        level, until = self._penalties.get(account, (-1, now))
        if until > now:
            return
        level = min(level + 1, len(PENALTIES) - 1)
        self._penalties[account] = (level, now + timedelta(seconds=PENALTIES[level]))

    def is_penalised(self, account: int, now: datetime) -> bool:
        """Tell whether an account is to be chosen last."""
        return self._penalties.get(account, (0, now))[1] > now

    def forgive(self, account: int) -> None:
        """Forget an account's penalty: it served a request."""
        self._penalties.pop(account, None)

    def clear(self, account: int) -> None:
        """Forget all that is held against an account."""
        self._holds = {key: until for key, until in self._holds.items() if key[0] != account}
        self._lacks = {key: until for key, until in self._lacks.items() if key[0] != account}
        self._deferrals = {key: end for key, end in self._deferrals.items() if key[0] != account}
        self._leaving.pop(account, None)
        self.forgive(account)

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self._holds.clear()
        self._lacks.clear()
        self._serves.clear()
        self._deferrals.clear()
        self._leaving.clear()
        self._penalties.clear()


def family(model: str) -> str:
    """Return the family whose limit a model counts against, or the model itself."""
    match = FAMILY.search(model)
    return match[1] if match else model


bench = Bench()
