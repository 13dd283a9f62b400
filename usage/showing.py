"""A report as the console's table: figures in words, and links that go on from a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from usage import metrics
from usage.reports import FILTERS, SESSION, TIMES, Question, Report, Row

SHOWN = 500
MILLION = 1_000_000
HEADS = {
    "double_billed": "Billed twice",
    "cost_micro_usd": "Cost",
    "saved_micro_usd": "Saved",
    "share_of_all": "Share of all",
    "hit_ratio": "Read from cache",
    "cache_read_tokens": "Cache read",
    "cache_write_5m_tokens": "Written, 5 min",
    "cache_write_1h_tokens": "Written, 1 h",
    "p50_seconds": "Median",
    "p95_seconds": "95th percentile",
    "p99_seconds": "99th percentile",
    "total_tokens": "All tokens",
    "unpriced": "Without price",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A row in words; `link` is the query that looks closer at it, empty for none."""

    label: str
    cells: tuple[str, ...]
    link: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A report in words."""

    heads: tuple[str, ...]
    lines: list[Line]
    total: tuple[str, ...]
    more: int


def shown(report: Report, query: Mapping[str, str]) -> Shown:
    """Return a report in words; `query` is the address's, for the links of its rows."""
    kinds = report.columns
    return Shown(
        heads=tuple(HEADS.get(name, name.replace("_", " ").capitalize()) for name in kinds),
        lines=[
            Line(row.label, _cells(row.figures, kinds), _link(report.question, row, query))
            for row in report.rows[:SHOWN]
        ],
        total=_cells(report.total, kinds),
        more=max(0, len(report.rows) - SHOWN),
    )


def export_query(asked: Question) -> str:
    """Return the query of an export of exactly what a question is about."""
    told = {
        "metric": asked.metric,
        "group": asked.group,
        "since": asked.since.isoformat(),
        "until": asked.until.isoformat(),
        "zone": asked.zone.key,
    }
    return urlencode(told | dict(asked.filters))


def figure(value: float | None, kind: metrics.Kind) -> str:
    """Return a figure in words."""
    if value is None:
        return "–"
    match kind:
        case "share":
            return f"{100 * value:.1f} %"
        case "usd":
            return (
                f"${value / MILLION:,.4f}" if abs(value) < MILLION else f"${value / MILLION:,.2f}"
            )
        case "seconds":
            return f"{value:.2f} s"
        case _:
            return f"{value:,}"


def _cells(
    figures: Mapping[str, float | None], kinds: Mapping[str, metrics.Kind]
) -> tuple[str, ...]:
    return tuple(figure(figures[name], kind) for name, kind in kinds.items())


def _link(asked: Question, row: Row, query: Mapping[str, str]) -> str:
    """Return the query for one member by day; an empty value cannot be filtered for."""
    if asked.group in (*TIMES, SESSION) or asked.group not in FILTERS or row.value == "":
        return ""
    return urlencode({**query, asked.group: row.value, "group": "day"})
