"""How long requests took, counted in buckets whose bounds grow by a quarter; pure.

A percentile is taken within its bucket as if the times in it were spread evenly on a logarithmic
scale, so it is at most 25 % away from the true one; times under 1 ms count as 1 ms, times over an
hour and a half as the last bucket's.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log

GROWTH = 1.25
FIRST_MS = 1.0
# The last bound is 1.25 ** 70 ms, about an hour and 42 minutes.
BUCKETS = 71


def bucket(started: float | None, over: float | None) -> int | None:
    """Return the bucket of a time between two epochs in seconds; None when there was none."""
    if started is None or over is None:
        return None
    milliseconds = (over - started) * 1000
    if milliseconds <= FIRST_MS:
        return 0
    return min(BUCKETS - 1, ceil(log(milliseconds / FIRST_MS, GROWTH) - 1e-9))


def bound(number: int) -> float:
    """Return the upper bound of a bucket, in seconds."""
    return float(FIRST_MS * GROWTH**number) / 1000


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """Return the time, in seconds, within which this share of the requests was; None of none."""
    total = sum(counts.values())
    if not total:
        return None
    rank = max(1, ceil(share * total))
    seen = 0
    for number, count in sorted(counts.items()):
        if seen + count >= rank:
            within = (rank - seen) / count
            return round(bound(number - 1) * GROWTH**within if number else bound(0), 4)
        seen += count
    return None
