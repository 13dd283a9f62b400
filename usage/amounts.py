"""What requests used, in tokens and micro-USD, before the database knows of them; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from usage import metrics, pricing
from usage.pricing import OwnPrice

TOKENS = (*metrics.PROMPT, "output_tokens")


@dataclass(frozen=True, slots=True)
class Amount:
    """All tokens, also those read from a cache, and their cost; what has no price costs nothing."""

    tokens: int = 0
    cost: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.cost + other.cost)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.tokens - other.tokens, self.cost - other.cost)


NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class Prices:
    """What requests are priced by: the operator's own prices, and the kind of each account."""

    own: Sequence[OwnPrice]
    kinds: Mapping[int, str]

    def amount(self, row: Mapping[str, Any]) -> Amount:
        """Return what the row of a record says was used, as its record will say it.

        A row of a request under way says what is known so far.
        """
        tokens = sum(row.get(name) or 0 for name in TOKENS)
        used = pricing.use_of(self._told(row)) if tokens or row.get("web_searches") else None
        cost = pricing.price(used, self.own) if used else None
        return Amount(tokens, cost.micro_usd if cost else 0)

    def _told(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return what pricing reads, as the record has it; an older release tells less."""
        told: dict[str, Any] = {name: row.get(name) for name in (*TOKENS, "web_searches")}
        told |= {name: row.get(name, "") for name in ("service_tier", "speed", "geo")}
        account = row.get("account") or 0
        return told | {
            "answered_by": recorded_name(row.get("answered_by", "")),
            "model": recorded_name(row.get("model", "")),
            "provider": self.kinds.get(account, row.get("provider", "")),
            "started_at": datetime.fromtimestamp(row["started_at"], UTC),
            "parts": row.get("parts", ()),
        }


def recorded_name(model: str) -> str:
    """Return a model's name for its column: others choose this text; PostgreSQL takes no NUL."""
    return model.replace("\0", "")[:128]
