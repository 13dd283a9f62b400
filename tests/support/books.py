"""The truth about usage: what the simulator told, and its cost by prices that are written here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

# USD per million tokens: input, output, cache read, cache write of 5 minutes, of an hour.
PRICES = {
    "claude-opus-5-5": ("4", "20", "0.2", "5", "8"),
    "claude-opus-5": ("5", "25", "0.5", "6.25", "10"),
    "claude-opus-4-8": ("5", "25", "0.5", "6.25", "10"),
    "claude-sonnet-5": ("2", "10", "0.2", "2.5", "4"),
    "claude-fable-5-2": ("8", "40", "0.2", "10", "16"),
    "claude-haiku-4-5-20251001": ("1", "5", "0.1", "1.25", "2"),
}
UNKNOWN = "claude-nova-9"
MICRO_PER_SEARCH = 10_000
TWICE_WHEN_FAST = ("claude-opus-4-8", "claude-opus-5")
SAME_IN_THE_US = ("claude-haiku-4-5-20251001",)
TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
)
COUNTS = (*TOKENS, "thinking_tokens", "web_searches", "web_fetches")
MONEY = ("cost_micro_usd", "saved_micro_usd")
TERMS = ("service_tier", "speed", "geo", "answered_by")
# What sums tell; of searches that were only fetches there is none.
SUMMED = (*COUNTS[:-1], *MONEY)
Figures = Mapping[str, Any]
NOTHING: Figures = dict.fromkeys((*COUNTS, *MONEY)) | dict.fromkeys(TERMS, "")
Group = tuple[str, str, str]


@dataclass(frozen=True)
class Truth:
    """What one request really was: who paid, who asked, which model, and the figures."""

    account: str
    key: str
    model: str
    figures: Figures


def figures(told: Mapping[str, Any]) -> Figures:
    """Return what a client knows of usage that was told this."""
    usage, model = told["usage"], told["model"]
    parts = usage.get("iterations") or []
    parts = [_sampling(part, part.get("model") or model) for part in parts]
    is_fallback = bool(parts) and usage["iterations"][-1]["type"] == "fallback_message"
    whole = _sampling(usage, model)
    samplings = parts if len(parts) > 1 else [whole]
    tools = usage.get("server_tool_use") or {}
    terms = {
        "service_tier": usage.get("service_tier") or "",
        "speed": usage.get("speed") or "",
        "geo": usage.get("inference_geo") or "",
    }
    searches = tools.get("web_search_requests")
    cost = price(samplings, terms, searches or 0)
    plain = [
        one
        | {"input_tokens": one["input_tokens"] + one["cache_read_tokens"], "cache_read_tokens": 0}
        for one in samplings
    ]
    dear = price(plain, terms, searches or 0)
    return {
        **{name: whole[name] for name in TOKENS},
        "thinking_tokens": (usage.get("output_tokens_details") or {}).get("thinking_tokens"),
        "web_searches": searches,
        "web_fetches": tools.get("web_fetch_requests"),
        **terms,
        "answered_by": parts[-1]["model"] if is_fallback else model,
        "cost_micro_usd": cost,
        "saved_micro_usd": None if cost is None or dear is None else dear - cost,
    }


def price(
    samplings: Iterable[Mapping[str, Any]], terms: Mapping[str, str], searches: int
) -> int | None:
    """Return micro-USD; a USD for a million tokens is a micro-USD for one."""
    total = Fraction(MICRO_PER_SEARCH * searches)
    for one in samplings:
        prices, factor = PRICES.get(one["model"]), Fraction(1)
        if prices is None:
            return None
        if terms["speed"] == "fast":
            if one["model"] not in TWICE_WHEN_FAST:
                return None
            factor *= 2
        if terms["geo"] == "us" and one["model"] not in SAME_IN_THE_US:
            factor *= Fraction(11, 10)
        if terms["service_tier"] == "batch":
            factor /= 2
        for name, usd in zip(TOKENS, prices, strict=True):
            total += one[name] * Fraction(usd) * factor
    return round(total)


def of_record(record: Mapping[str, Any]) -> Figures:
    """Return the figures of a record as `usage export` tells them."""
    return {name: record[name] for name in NOTHING}


def sums(truths: Sequence[Truth], *by: str) -> dict[tuple[str, ...], dict[str, int]]:
    """Return the sums of the figures by some of account, key and model, where there are any."""
    found: dict[tuple[str, ...], Counter[str]] = {}
    for truth in truths:
        counter = found.setdefault(tuple(getattr(truth, name) for name in by), Counter())
        counter.update({name: truth.figures[name] or 0 for name in SUMMED})
        is_told = truth.figures["input_tokens"] is not None
        counter["unpriced"] += is_told and truth.figures["cost_micro_usd"] is None
    return {group: dict(counter) for group, counter in found.items() if any(counter.values())}


def _sampling(counts: Mapping[str, Any], model: str) -> dict[str, Any]:
    written = counts.get("cache_creation_input_tokens") or 0
    for_an_hour = (counts.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0
    return {
        "model": model,
        "input_tokens": counts["input_tokens"],
        "output_tokens": counts["output_tokens"],
        "cache_read_tokens": counts.get("cache_read_input_tokens") or 0,
        "cache_write_5m_tokens": written - for_an_hour,
        "cache_write_1h_tokens": for_an_hour,
    }
