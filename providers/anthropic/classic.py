"""The per-minute limits of an API key, of its priority tier and of its fast mode."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from providers.anthropic import values
from providers.base import Window

NAME = re.compile(
    r"anthropic-(ratelimit|priority|fast)-((?:input-|output-)?tokens|requests)-(limit|remaining)"
)


def read(headers: Mapping[str, str], now: datetime, skew: timedelta) -> tuple[Window, ...]:
    """Return what is left of each, with a share as of other windows (1.0 = spent)."""
    found = {(match[1], match[2]) for match in map(NAME.fullmatch, headers) if match}
    return tuple(_windows(sorted(found), headers, now, skew))


def spent_until(windows: tuple[Window, ...]) -> datetime | None:
    """Return when the last of the limits that are at 0 is filled again.

    What lies beyond the priority tier and the fast mode is served all the same, only otherwise.
    """
    resets = [w.reset_at for w in windows if w.remaining == 0 and _is_plain(w.name)]
    return max(filter(None, resets), default=None)


def _windows(
    found: list[tuple[str, str]], headers: Mapping[str, str], now: datetime, skew: timedelta
) -> Iterator[Window]:
    for family, counted in found:
        prefix = f"anthropic-{family}-{counted}-"
        limit = _count(headers.get(prefix + "limit"))
        remaining = _count(headers.get(prefix + "remaining"))
        if limit is None and remaining is None:
            continue
        yield Window(
            name=("" if family == "ratelimit" else f"{family}_") + counted.replace("-", "_"),
            utilization=_share(limit, remaining),
            reset_at=values.moment(headers.get(prefix + "reset"), now, skew),
            limit=limit,
            remaining=remaining,
        )


def _share(limit: int | None, remaining: int | None) -> float | None:
    if not limit or remaining is None:
        return None
    return 1 - min(remaining, limit) / limit


def _count(value: str | None) -> int | None:
    number = values.number(value)
    return None if number is None else int(number)


def _is_plain(name: str) -> bool:
    return not name.startswith(("priority_", "fast_"))
