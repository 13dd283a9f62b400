"""What a request costs: published prices, the terms that change them, and the operator's own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from usage import pricing
from usage.pricing import Counts, OwnPrice, Use, price

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
OWN = OwnPrice(
    id=7,
    model="claude-opus-5-5",
    valid_from=AT - timedelta(days=1),
    input=Decimal(1),
    output=Decimal(2),
    cache_read=Decimal("0.1"),
    cache_write_5m=Decimal("1.25"),
    cache_write_1h=Decimal(3),
)
# USD per million tokens: input, output, 5 min write, 1 h write, read.
PUBLISHED = """
claude-fable-5-2            8     40    10     16    0.2
claude-fable-5             10     50    12.5   20    1
claude-opus-5-5             4     20    5      8     0.2
claude-opus-5               5     25    6.25   10    0.5
claude-opus-4-6             5     25    6.25   10    0.5
claude-sonnet-5-5           2     10    2.5    4     0.1
claude-sonnet-5             2     10    2.5    4     0.2
claude-haiku-5-5            0.1   0.5   0.125  0.2   0.01
claude-haiku-4-5-20251001   1     5     1.25   2     0.1
"""
KINDS = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")
ROWS = [
    (line.split()[0], kind, Decimal(usd))
    for line in PUBLISHED.strip().splitlines()
    for kind, usd in zip(KINDS, line.split()[1:], strict=True)
]


def use(model: str = "claude-opus-5-5", **given: Any) -> Use:
    counts = {name: given.pop(name) for name in KINDS if name in given}
    return Use(AT, given.pop("provider", "oauth"), (Counts(model, **counts),), **given)


def micro(used: Use, *own: OwnPrice) -> int | None:
    cost = price(used, own)
    return cost.micro_usd if cost else None


@pytest.mark.parametrize(("model", "kind", "usd"), ROWS)
def test_each_kind_of_token_has_its_published_price(model: str, kind: str, usd: Decimal) -> None:
    assert micro(use(model, **{kind: 10_000})) == usd * 10_000


def test_a_long_prompt_of_a_model_with_tiers_costs_the_long_price() -> None:
    short, long = use("claude-haiku-5-5", input=100_000), use("claude-haiku-5-5", input=100_001)

    assert micro(short) == 10_000
    assert micro(long) == 50_000
    # What was read from the cache is part of the prompt.
    cached = use("claude-haiku-5-5", input=1, cache_read=100_000)
    assert micro(cached) == 5_000


@pytest.mark.parametrize(
    ("model", "terms", "expected"),
    [
        ("claude-opus-5", {}, 5_000),
        ("claude-opus-5", {"service_tier": "batch"}, 2_500),
        ("claude-opus-5", {"service_tier": "priority", "speed": "standard"}, 5_000),
        ("claude-opus-5", {"speed": "fast"}, 10_000),
        ("claude-opus-4-8", {"speed": "fast"}, 10_000),
        ("claude-sonnet-5", {"speed": "fast"}, None),
        ("claude-opus-5", {"geo": "us"}, 5_500),
        ("claude-opus-4-6", {"geo": "us"}, 5_500),
        ("claude-haiku-4-5", {"geo": "us"}, 1_000),
        ("claude-opus-5", {"geo": "global"}, 5_000),
        ("claude-opus-5", {"geo": "us", "service_tier": "batch"}, 2_750),
    ],
)
def test_the_terms_of_a_request_change_its_price(
    model: str, terms: dict[str, str], expected: int | None
) -> None:
    assert micro(use(model, input=1_000, **terms)) == expected


def test_searches_cost_a_cent_each_whatever_the_terms() -> None:
    assert micro(use(input=0, web_searches=3)) == 30_000
    assert micro(use(input=0, web_searches=3, service_tier="batch")) == 30_000


@pytest.mark.parametrize(
    ("model", "provider"),
    [("gpt-9", "oauth"), ("", "api_key"), ("claude-opus-99", "oauth"), ("glm-5", "compatible")],
)
def test_an_unknown_price_is_none_and_never_a_guess(model: str, provider: str) -> None:
    assert price(use(model, input=1000, provider=provider)) is None


def test_what_an_endpoint_of_others_charges_only_its_operator_knows() -> None:
    used = use(input=1_000_000, provider="compatible")

    assert price(used) is None
    assert micro(used, OWN) == 1_000_000


def test_own_prices_win_and_say_so() -> None:
    cost = price(use(input=1_000_000, cache_write_1h=1_000_000), [OWN])

    assert cost == pricing.Cost(4_000_000, "own-7")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([replace(OWN, valid_from=AT + timedelta(seconds=1))], 4_000_000),
        ([OWN, replace(OWN, valid_from=AT, input=Decimal(9))], 9_000_000),
        ([OWN, replace(OWN, prompt_from=500_000, input=Decimal(6))], 6_000_000),
        ([OWN, replace(OWN, prompt_from=2_000_000, input=Decimal(6))], 1_000_000),
        ([OWN, replace(OWN, model="claude-*", input=Decimal(8))], 1_000_000),
        ([replace(OWN, model="claude-*", input=Decimal(8))], 8_000_000),
        (
            [
                replace(OWN, model="claude-*", input=Decimal(8)),
                replace(OWN, model="claude-opus-*", input=Decimal(7)),
            ],
            7_000_000,
        ),
        ([replace(OWN, model="claude-sonnet-*")], 4_000_000),
    ],
)
def test_the_exactest_and_newest_own_price_decides(rows: list[OwnPrice], expected: int) -> None:
    assert micro(use(input=1_000_000), *rows) == expected


def test_a_model_with_a_date_has_the_price_of_its_name() -> None:
    assert micro(use("claude-opus-5-5-20261001", input=1_000_000), OWN) == 1_000_000


def test_a_cost_is_rounded_once_for_the_whole_request() -> None:
    # Each of the two alone would be half a micro-dollar, and be rounded to even: to nothing.
    halves = Counts("claude-haiku-5-5", input=5)

    assert price(Use(AT, "oauth", (halves,))) == pricing.Cost(0, version())
    assert price(Use(AT, "oauth", (halves, halves))) == pricing.Cost(1, version())


def test_an_answer_of_several_samplings_is_priced_model_by_model() -> None:
    part = {
        "type": "message",
        "model": "claude-fable-5-2",
        "input_tokens": 1000,
        "output_tokens": 0,
        "cache_read_tokens": 0,
        "cache_write_5m_tokens": 0,
        "cache_write_1h_tokens": 0,
    }
    record = part | {
        "answered_by": "claude-opus-5",
        "provider": "oauth",
        "started_at": AT,
        "web_searches": 2,
        "service_tier": "standard",
        "speed": "",
        "geo": "",
        "parts": [
            part,
            part | {"type": "fallback_message", "model": "claude-opus-5"},
            part | {"type": "compaction", "model": ""},
        ],
    }

    used = pricing.use_of(record)

    assert used is not None
    assert micro(used) == 8_000 + 5_000 + 5_000 + 20_000


def test_what_the_cache_saved_is_at_the_prices_and_terms_of_the_request() -> None:
    # 1,000 tokens at 5 USD a million instead of 0.5, and a tenth more in the US.
    used = use("claude-opus-5", input=7, cache_read=1_000, cache_write_1h=5, geo="us")

    assert pricing.saved(used, price(used)) == 4_950
    assert pricing.saved(use(input=1), price(use(input=1))) == 0
    assert pricing.saved(use("gpt-9", cache_read=1), None) is None


def test_a_record_that_says_nothing_of_tokens_has_no_cost() -> None:
    assert pricing.use_of({"input_tokens": None, "output_tokens": None}) is None


def version() -> str:
    return f"genai-{pricing.known_version()}"
