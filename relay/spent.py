"""What an answer used, as it is recorded: flat counts, and parts with prices of their own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from relay.meter import Count, Usage

LONGEST_WORD, LONGEST_MODEL, MOST_PARTS = 32, 128, 64


class _CacheCreation(msgspec.Struct):
    ephemeral_1h_input_tokens: Count | None = None


class _Thinking(msgspec.Struct):
    thinking_tokens: Count | None = None


class _Tools(msgspec.Struct):
    web_search_requests: Count | None = None
    web_fetch_requests: Count | None = None


class _Iteration(msgspec.Struct):
    type: str = ""
    model: str | None = None
    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: Any = None


@dataclass(frozen=True, slots=True)
class Part:
    """One sampling of an answer that took several: its kind, its model and its own counts."""

    type: str
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What one answer used; None is "not said". Counts are those of the official client.

    `parts` is empty unless the answer took several samplings. `model` is the one that answered.
    """

    model: str
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_5m_tokens: int | None
    cache_write_1h_tokens: int | None
    thinking_tokens: int | None
    web_searches: int | None
    web_fetches: int | None
    service_tier: str
    speed: str
    geo: str
    parts: tuple[Part, ...] = ()

    def as_row(self) -> dict[str, Any]:
        """Return plain fields for the record, by the names of its columns."""
        row = asdict(self)
        row["answered_by"] = row.pop("model")
        return row


def read(usage: Usage, model: str) -> Spent:
    """Read the usage of one answer that `model` gave; what is odd counts as not said."""
    parts = _parts(usage.iterations)
    served = next((part.model for part in reversed(parts) if part.type == "fallback_message"), "")
    total, long = usage.cache_creation_input_tokens, _long(usage.cache_creation)
    thinking = _as(_Thinking, usage.output_tokens_details)
    tools = _as(_Tools, usage.server_tool_use)
    return Spent(
        model=served or model[:LONGEST_MODEL],
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_input_tokens,
        cache_write_5m_tokens=None if total is None else max(0, total - long),
        cache_write_1h_tokens=None if total is None else min(total, long),
        thinking_tokens=thinking.thinking_tokens,
        web_searches=tools.web_search_requests,
        web_fetches=tools.web_fetch_requests,
        service_tier=_word(usage.service_tier),
        speed=_word(usage.speed),
        geo=_word(usage.inference_geo),
        parts=parts,
    )


def _parts(iterations: object) -> tuple[Part, ...]:
    """Return the samplings of an answer; one alone is the answer itself and says nothing more."""
    if not isinstance(iterations, list) or len(iterations) > MOST_PARTS:
        return ()
    try:
        parts = [_part(msgspec.convert(item, _Iteration)) for item in iterations]
    except (msgspec.ValidationError, ValueError):
        return ()
    return tuple(parts) if len(parts) > 1 else ()


def _part(item: _Iteration) -> Part:
    total, long = item.cache_creation_input_tokens or 0, _long(item.cache_creation)
    return Part(
        type=_word(item.type),
        model=_word(item.model, LONGEST_MODEL),
        input_tokens=item.input_tokens,
        output_tokens=item.output_tokens,
        cache_read_tokens=item.cache_read_input_tokens or 0,
        cache_write_5m_tokens=max(0, total - long),
        cache_write_1h_tokens=min(total, long),
    )


def _long(creation: object) -> int:
    """Return what was written to the cache for an hour; the rest is for five minutes."""
    return _as(_CacheCreation, creation).ephemeral_1h_input_tokens or 0


def _as(kind: type[Any], value: object) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return kind()


def _word(value: object, longest: int = LONGEST_WORD) -> str:
    return value[:longest] if isinstance(value, str) and value.isprintable() else ""
