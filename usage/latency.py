"""How long requests took, counted in buckets whose bounds double every second one; pure.

A percentile is taken within its bucket as if the times in it were spread evenly on a logarithmic
scale, so it is at most 42 % away from the true one, most often a tenth of that. Times up to 20 ms
count as 20 ms, those over a quarter of an hour as the last bucket's.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log, sqrt

GROWTH = sqrt(2)
FIRST = 0.02
# The last bound is about 15 minutes and a half.
BUCKETS = 32


def bucket(started: float | None, over: float | None) -> int | None:
    """Return the bucket of a time between two epochs in seconds; None when there was none."""
    if started is None or over is None:
        return None
    seconds = over - started
    if seconds <= FIRST:
        return 0
    return min(BUCKETS - 1, ceil(log(seconds / FIRST, GROWTH) - 1e-9))


def bound(number: int) -> float:
    """Return the upper bound of a bucket, in seconds."""
    return float(FIRST * GROWTH**number)


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
