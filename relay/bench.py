"""What this process itself holds against accounts, until the database knows it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from django.utils import timezone

# The snapshot of the pool is at most this old; by then it says itself what was learnt.
UNTIL_KNOWN = timedelta(seconds=5)
LACKING = timedelta(hours=1)
# A database that is away is given what was learnt within this time.
FORETOLD = timedelta(seconds=60)
REMEMBERED = 10_000
PENALTIES = (5, 10, 20, 40, 80, 160, 300)
# An account and a family of models; "" is all of them.
Key = tuple[int, str]
# Requests and tokens a minute; None is no limit.
Pace = tuple[int | None, int | None]
FAMILY = re.compile(r"(opus|sonnet|haiku|fable|mythos)")


class Bench:
    """Holds and penalties by account; a hold may be for one family of models only."""

    def __init__(self) -> None:
        self._holds: dict[Key, datetime] = {}
        self._returns: dict[int, tuple[datetime, datetime]] = {}
        self._penalties: dict[int, tuple[int, datetime]] = {}
        self._lacks: dict[Key, datetime] = {}
        self._serves: set[tuple[int, str]] = set()
        self._deferrals: dict[Key, datetime] = {}
        self._leaving: dict[int, datetime] = {}
        self._pauses: dict[int, tuple[Pace, datetime]] = {}

    def hold(
        self, account: int, until: datetime, model: str = "", now: datetime | None = None
    ) -> None:
        """Keep an account out until `until`, for one model's family or for all."""
        key = (account, family(model))
        self._holds = _bounded(self._holds, now or timezone.now())
        _keep_latest(self._holds, key, until)

    def held_until(self, account: int, model: str, now: datetime) -> datetime | None:
        """Return when the account may be used for `model` again; None if it may now."""
        holds = (self._holds.get((account, name)) for name in {"", family(model)})
        return max((hold for hold in holds if hold and hold > now), default=None)

    def foretell(self, account: int, returns_at: datetime, now: datetime) -> None:
        """Note when an account that is held now will really be back."""
        self._returns[account] = returns_at, now + FORETOLD

    def returns_at(self, account: int, model: str, now: datetime) -> datetime | None:
        """Return when the account will be back, as far as this process knows; None: it is not held.

        A hold only lasts until the pool itself says how long an account is out.
        """
        held = self.held_until(account, model, now)
        whole = self._holds.get((account, ""), now)
        foretold, until = self._returns.get(account, (now, now))
        return max(held, foretold) if held and whole > now and until > now else held

    def pause(self, account: int, pace: Pace, until: datetime) -> None:
        """Keep out of an account what counts against its minute, while its limits are these."""
        self._pauses[account] = pace, until

    def paused_until(self, account: int, pace: Pace, now: datetime) -> datetime | None:
        """Return when an account's minute has room again; None if it has now."""
        held, until = self._pauses.get(account, (pace, now))
        return until if held == pace and until > now else None

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
        self._lacks = _bounded(self._lacks, now)
        _keep_latest(self._lacks, key, now + LACKING)

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

    def defer(
        self, account: int, until: datetime, model: str = "", now: datetime | None = None
    ) -> None:
        """Put an account last until `until`, for one model's family or for all."""
        key = (account, family(model))
        self._deferrals = _bounded(self._deferrals, now or timezone.now())
        _keep_latest(self._deferrals, key, until)

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
        self._returns.pop(account, None)
        self._lacks = {key: until for key, until in self._lacks.items() if key[0] != account}
        self._deferrals = {key: end for key, end in self._deferrals.items() if key[0] != account}
        self._leaving.pop(account, None)
        self._pauses.pop(account, None)
        self.forgive(account)

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self._holds.clear()
        self._returns.clear()
        self._lacks.clear()
        self._serves.clear()
        self._deferrals.clear()
        self._leaving.clear()
        self._pauses.clear()
        self._penalties.clear()


def family(model: str) -> str:
    """Return the family whose limit a model counts against, or the model itself."""
    match = FAMILY.search(model)
    return match[1] if match else model


def _bounded(known: dict[Key, datetime], now: datetime) -> dict[Key, datetime]:
    """Return what is known, without what has ended once it is much.

    Names of models come from clients: what is remembered of them must have an end.
    """
    if len(known) < REMEMBERED:
        return known
    return {key: until for key, until in known.items() if until > now}


def _keep_latest(known: dict[Key, datetime], key: Key, until: datetime) -> None:
    """Remember the later end; when all is full, only for what is of no single model."""
    if key in known or not key[1] or len(known) < REMEMBERED:
        known[key] = max(until, known.get(key, until))


bench = Bench()
