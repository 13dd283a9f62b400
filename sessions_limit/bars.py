"""The budgets of keys as bars: what was used of the most, and when it begins anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sessions_limit.models import ClientKey
from sessions_limit.standing import Standing, standings
from sessions_limit.terms import MICRO

CENT = MICRO // 100


@dataclass(frozen=True, slots=True)
class Bar:
    """One budget of a key in words and figures."""

    budget: Standing

    @property
    def label(self) -> str:
        """What is limited: "Tokens a day"."""
        return f"{'Tokens' if self.budget.unit == 'tokens' else 'USD'} a {self.budget.period}"

    @property
    def text(self) -> str:
        """Say how it stands: "1,200 of 5,000", "$0.40 of $2.00"."""
        return f"{self._figure(self.budget.used)} of {self._figure(self.budget.most)}"

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.budget.used >= self.budget.most

    @property
    def percent(self) -> int:
        """How much is used, in percent; it is never called all while something is left."""
        return 100 if self.is_spent else min(99, round(100 * self.budget.share))

    @property
    def value(self) -> str:
        """How much is used, as a bar's value."""
        return f"{min(self.budget.share, 1.0):.3f}"

    def _figure(self, amount: int) -> str:
        if self.budget.unit == "tokens":
            return f"{amount:,}"
        # What is less than a cent is not nothing.
        places = 4 if amount % CENT else 2
        return f"${amount / MICRO:,.{places}f}"


def load(keys: Iterable[ClientKey], now: datetime) -> dict[int, list[Bar]]:
    """Return the budgets of keys by their ids, in few queries for all of them."""
    return {id: [Bar(one) for one in found] for id, found in standings(keys, now).items()}


def fullest(bars: Iterable[Bar]) -> Bar | None:
    """Return the budget that is used up first, as it stands; None without any."""
    return max(bars, key=lambda bar: bar.budget.share, default=None)
