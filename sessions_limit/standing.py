"""How far the budgets of keys are used, for who looks at them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from django.utils import timezone

from sessions_limit.figures import Reader
from sessions_limit.keys import Budget, Key, Period, budgets_of
from sessions_limit.models import ClientKey
from sessions_limit.terms import MICRO

Unit = Literal["tokens", "cost"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of a budget is used; tokens, or micro-USD where the unit is "cost"."""

    period: Period
    unit: Unit
    most: int
    used: int
    resets_at: datetime

    @property
    def share(self) -> float:
        """The used part of it; more than 1 where answers under way went beyond it."""
        return self.used / self.most if self.most else 1.0


def standing(key: ClientKey | Key, now: datetime | None = None) -> list[Standing]:
    """Return how far each budget of a key is used, requests under way not counted (blocking)."""
    return standings([key], now)[key.id]


def standings(
    keys: Iterable[ClientKey | Key], now: datetime | None = None
) -> dict[int, list[Standing]]:
    """Return the same of several keys, by their ids; in a few queries for all of them."""
    now = now or timezone.now()
    asked = {key.id: key for key in keys}
    budgets = {id: _budgets(key) for id, key in asked.items()}
    zones = {id: asked[id].time_zone for id, found in budgets.items() if found}
    if not zones:
        return {id: [] for id in asked}
    figures = Reader().read(zones, now)

    def stand(id: int, budget: Budget) -> Standing:
        known = figures.keys[id]
        used, until = known.used[budget.period], known.spans[budget.period].end
        return Standing(budget.period, budget.unit, budget.most, getattr(used, budget.unit), until)

    return {id: [stand(id, budget) for budget in found] for id, found in budgets.items()}


def in_words(unit: Unit, number: int) -> str:
    """Return tokens or micro-USD as people write them: "1,000,000 tokens", "5.00 USD"."""
    if unit == "tokens":
        return f"{number:,} token" if number == 1 else f"{number:,} tokens"
    whole, _, rest = f"{Decimal(number) / MICRO:,.6f}".partition(".")
    return f"{whole}.{rest.rstrip('0'):0<2} USD"


def _budgets(key: ClientKey | Key) -> tuple[Budget, ...]:
    return key.budgets if isinstance(key, Key) else budgets_of(key)
