"""What a report can say: columns of each metric, computed from sums or from latencies; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from usage import latency

Sums = Mapping[str, int]
# How a column is written: tokens and requests are counts, costs are micro-USD.
Kind = Literal["count", "share", "usd", "seconds"]
PROMPT = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")


@dataclass(frozen=True, slots=True)
class Column:
    """One figure: what it is called, and how it follows from the sums and those of the range."""

    name: str
    kind: Kind
    of: Callable[[Sums, Sums], float | None]


class _Asked(dict[str, int]):
    """Sums of nothing, which know what they were asked for."""

    def __missing__(self, name: str) -> int:
        self[name] = 0
        return 0


def _sum(name: str) -> Column:
    return Column(name, "count", lambda sums, whole: sums[name])


def _usd(name: str) -> Column:
    return Column(f"{name}_micro_usd", "usd", lambda sums, whole: sums[name])


def _total(sums: Sums) -> int:
    """Return all tokens; thinking is part of what was put out."""
    return _prompt(sums) + sums["output_tokens"]


def _prompt(sums: Sums) -> int:
    return sum(sums[name] for name in PROMPT)


def _share(part: int, of: int) -> float | None:
    return round(part / of, 6) if of else None


REQUESTS = _sum("requests")
METRICS: Mapping[str, tuple[Column, ...]] = {
    "requests": (
        REQUESTS,
        _sum("successes"),
        _sum("errors"),
        Column("success_rate", "share", lambda s, w: _share(s["successes"], _judged(s))),
        _sum("partial"),
        _sum("double_billed"),
        _sum("bytes_received"),
        _sum("bytes_sent"),
    ),
    "errors": (
        REQUESTS,
        _sum("errors"),
        Column("error_rate", "share", lambda s, w: _share(s["errors"], s["requests"])),
        Column("share_of_all", "share", lambda s, w: _share(s["errors"], w["requests"])),
    ),
    "tokens": (
        Column("total_tokens", "count", lambda s, w: _total(s)),
        *(_sum(name) for name in PROMPT),
        _sum("output_tokens"),
        _sum("thinking_tokens"),
        _sum("web_searches"),
    ),
    "cost": (
        _usd("cost"),
        Column("share_of_all", "share", lambda s, w: _share(s["cost"], w["cost"])),
        REQUESTS,
        _sum("unpriced"),
    ),
    "cache": (
        Column("hit_ratio", "share", lambda s, w: _share(s["cache_read_tokens"], _prompt(s))),
        _usd("saved"),
        *(_sum(name) for name in PROMPT),
    ),
}
# Percentiles, from the counts of their buckets.
SHARES = {"p50_seconds": 0.50, "p95_seconds": 0.95, "p99_seconds": 0.99}
LATENCY = ("first_byte", "duration")
NAMES = (*METRICS, *LATENCY)


def _judged(sums: Sums) -> int:
    """Return the requests that went well or wrong; whoever hung up is neither."""
    return sums["successes"] + sums["errors"]


def columns(metric: str) -> dict[str, Kind]:
    """Return the names of a metric's columns and how they are written."""
    if metric in LATENCY:
        seconds: dict[str, Kind] = dict.fromkeys(SHARES, "seconds")
        return {"requests": "count", **seconds}
    return {column.name: column.kind for column in METRICS[metric]}


def figures(metric: str, sums: Sums, whole: Sums) -> dict[str, float | None]:
    """Return the columns of a metric; `whole` are the sums of everything in the range."""
    return {column.name: column.of(sums, whole) for column in METRICS[metric]}


def needs(metric: str) -> list[str]:
    """Return the sums that the columns of a metric are computed from."""
    asked = _Asked()
    for column in METRICS[metric]:
        column.of(asked, asked)
    return list(asked)


def percentiles(counts: Mapping[int, int]) -> dict[str, float | None]:
    """Return the columns of a latency."""
    found = {name: latency.percentile(counts, share) for name, share in SHARES.items()}
    return {"requests": sum(counts.values())} | found
