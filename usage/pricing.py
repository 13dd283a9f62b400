"""What a request cost, from what it used: own prices first, else those of genai-prices; pure.

Everything is computed in decimals of USD and rounded once, to micro-USD. A price that is not known
is None, never a guess: the tokens are kept, and the request is priced again when there is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from importlib.metadata import version
from typing import Any

import genai_prices
from genai_prices.types import ModelPrice

MILLION, THOUSAND = Decimal(1_000_000), Decimal(1000)
BATCH, GEO_US = Decimal("0.5"), Decimal("1.1")
DAY = re.compile(r"-(\d{8}|latest)$", re.ASCII)
VERSION = re.compile(r"^claude-[a-z]+-(\d{1,2})(?:-(\d{1,2}))?(?:-|$)", re.ASCII)
# From this version on, inference that is bound to the US costs a tenth more.
# https://platform.claude.com/docs/en/about-claude/pricing
GEO_SINCE = (4, 6)
# Fast mode doubles every price of these models; of others no fast price is known.
FAST: Mapping[str, Decimal] = {"claude-opus-4-8": Decimal(2), "claude-opus-5": Decimal(2)}
ANTHROPIC = frozenset({"oauth", "setup_token", "api_key", "passthrough", ""})


@dataclass(frozen=True, slots=True)
class Counts:
    """The tokens of one sampling of one model."""

    model: str
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0

    @property
    def prompt(self) -> int:
        """The length of the prompt, which decides about long-context prices."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h


@dataclass(frozen=True, slots=True)
class Use:
    """What one request used: its samplings, its searches, and the terms it was served on."""

    at: datetime
    provider: str
    samplings: tuple[Counts, ...]
    web_searches: int = 0
    service_tier: str = ""
    speed: str = ""
    geo: str = ""


@dataclass(frozen=True, slots=True)
class OwnPrice:
    """A price that the operator set: USD per million tokens, and per thousand web searches.

    `model` is exact, or ends in `*`. It holds from `valid_from` on and for prompts of at least
    `prompt_from` tokens.
    """

    id: int
    model: str
    valid_from: datetime
    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    web_search: Decimal = Decimal(10)
    prompt_from: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost in micro-USD, and which prices gave it."""

    micro_usd: int
    version: str


def price(use: Use, own: Sequence[OwnPrice] = ()) -> Cost | None:
    """Return what a request cost, or None when a price of it is not known."""
    total, versions = Decimal(0), []
    searches = use.web_searches
    for counts in use.samplings:
        found = _sampling(counts, use, own, searches)
        if found is None:
            return None
        total += found[0]
        versions.append(found[1])
        # They are billed once, whatever number of samplings they took.
        searches = 0
    if not versions:
        return None
    micro = (total * MILLION).quantize(Decimal(1), rounding=ROUND_HALF_EVEN)
    return Cost(int(micro), "+".join(dict.fromkeys(versions))[:32])


def saved(use: Use, cost: Cost | None, own: Sequence[OwnPrice] = ()) -> int | None:
    """Return what cache reads saved: the cost with them as plain input, less the real one.

    None when a price of it is not known.
    """
    if cost is None:
        return None
    if not any(counts.cache_read for counts in use.samplings):
        return 0
    plain = tuple(
        replace(counts, input=counts.input + counts.cache_read, cache_read=0)
        for counts in use.samplings
    )
    dear = price(replace(use, samplings=plain), own)
    return dear.micro_usd - cost.micro_usd if dear else None


def use_of(record: Mapping[str, Any]) -> Use | None:
    """Return what a record says was used; None when it says nothing."""
    if record["input_tokens"] is None and record["output_tokens"] is None:
        return None
    model = record["answered_by"] or record["model"]
    whole = _counts(record, model)
    parts = tuple(_counts(part, part["model"] or model) for part in record["parts"])
    return Use(
        at=record["started_at"],
        provider=record["provider"],
        samplings=parts or (whole,),
        web_searches=record["web_searches"] or 0,
        service_tier=record["service_tier"],
        speed=record["speed"],
        geo=record["geo"],
    )


def undated(model: str) -> str:
    """Return a model's name without the day of its version."""
    return DAY.sub("", model)


def _counts(told: Mapping[str, Any], model: str) -> Counts:
    return Counts(
        model=model,
        input=told["input_tokens"] or 0,
        output=told["output_tokens"] or 0,
        cache_read=told["cache_read_tokens"] or 0,
        cache_write_5m=told["cache_write_5m_tokens"] or 0,
        cache_write_1h=told["cache_write_1h_tokens"] or 0,
    )


def _sampling(
    counts: Counts, use: Use, own: Sequence[OwnPrice], searches: int
) -> tuple[Decimal, str] | None:
    """Return the USD of one sampling, its searches included, and which prices gave it."""
    factor = _factor(counts.model, use)
    if factor is None:
        return None
    if (mine := _own(counts, use.at, own)) is not None:
        usd = _sum(counts, mine) * factor + mine.web_search * searches / THOUSAND
        return usd, f"own-{mine.id}"
    if use.provider not in ANTHROPIC:
        return None
    found = _known(counts, use.at, searches)
    if found is None:
        return None
    tokens, search = found
    return tokens * factor + search, f"genai-{known_version()}"


def _factor(model: str, use: Use) -> Decimal | None:
    """Return what the terms of a request multiply its token prices by; None: not known."""
    factor = Decimal(1)
    if use.service_tier == "batch":
        factor *= BATCH
    if use.geo == "us" and _model_version(model) >= GEO_SINCE:
        factor *= GEO_US
    if use.speed == "fast":
        fast = FAST.get(undated(model))
        return None if fast is None else factor * fast
    return factor


def _model_version(model: str) -> tuple[int, int]:
    match = VERSION.match(undated(model))
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def _own(counts: Counts, at: datetime, own: Sequence[OwnPrice]) -> OwnPrice | None:
    """Return the operator's price: the exactest name, of that the newest, of that the longest."""
    matching = [
        (_exactness(row.model, counts.model), row.valid_from, row.prompt_from, row)
        for row in own
        if row.valid_from <= at
        and row.prompt_from <= counts.prompt
        and _exactness(row.model, counts.model) > 0
    ]
    return max(matching, key=lambda found: found[:3])[3] if matching else None


def _exactness(pattern: str, model: str) -> int:
    """Return how exactly a pattern names a model; 0 when it does not."""
    if pattern == model:
        return 10_000
    if pattern == undated(model):
        return 9_999
    if pattern.endswith("*") and model.startswith(pattern[:-1]):
        return len(pattern)
    return 0


def _sum(counts: Counts, mine: OwnPrice) -> Decimal:
    usd = (
        counts.input * mine.input
        + counts.output * mine.output
        + counts.cache_read * mine.cache_read
        + counts.cache_write_5m * mine.cache_write_5m
        + counts.cache_write_1h * mine.cache_write_1h
    )
    return usd / MILLION


def _known(counts: Counts, at: datetime, searches: int) -> tuple[Decimal, Decimal] | None:
    """Return the USD of tokens and of searches by the library's prices, which are offline."""
    used = genai_prices.Usage(
        input_tokens=counts.prompt,
        output_tokens=counts.output,
        cache_read_tokens=counts.cache_read,
        cache_write_tokens=counts.cache_write_5m + counts.cache_write_1h,
        cache_write_1h_tokens=counts.cache_write_1h,
    )
    try:
        found = genai_prices.calc_price(
            used, counts.model, provider_id="anthropic", genai_request_timestamp=at
        )
    except (LookupError, ValueError):
        return None
    if not _is_complete(counts, found.model_price):
        return None
    kilo = getattr(found.model_price, "web_searches_kcount", None)
    if searches and kilo is None:
        return None
    return found.total_price, (kilo or Decimal(0)) * searches / THOUSAND


def _is_complete(counts: Counts, prices: ModelPrice) -> bool:
    """Tell whether the library has a price for everything that was used; it counts none as free."""
    needed = {
        "input_mtok": counts.input,
        "output_mtok": counts.output,
        "cache_read_mtok": counts.cache_read,
        "cache_write_mtok": counts.cache_write_5m,
        "cache_write_1h_mtok": counts.cache_write_1h,
    }
    return all(getattr(prices, name) is not None for name, count in needed.items() if count)


@cache
def known_version() -> str:
    """Return the version of the library's prices."""
    return version("genai-prices")
