"""How fast limit windows are used up, when they run out, and what the pool has left; pure.

Utilizations are fractions of a window (1.0 = spent); rates are per hour in the same unit. The pool
is counted in Pro plans: a plan of twenty times the size is 20.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

POOLED = ("5h", "7d")
LENGTHS = {"5h": timedelta(hours=5), "7d": timedelta(days=7)}
RECENT = {"5h": timedelta(minutes=60), "7d": timedelta(hours=24)}
# The same reset is told a little differently each time.
JITTER = timedelta(minutes=5)
# A step of a percent within a minute says little about an hour.
SHORTEST = timedelta(minutes=10)
# A fall by more is a window that was reset ahead of time; by less, a number that was rounded.
FALL = 0.05
FLAT = 1e-6
SPENT = 1.0
TIMES = re.compile(r"(\d{1,3})x")
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Sample:
    """How far a window was used at one moment."""

    at: datetime
    utilization: float
    reset_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Burn:
    """How fast a window is used up; `runs_out_at` None: not before its reset, or already."""

    rate_per_hour: float
    runs_out_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """What an account brings to the pool, of one window.

    `utilization` None: not known. `returns_at`: when an account that cannot serve now will.
    """

    size: int
    utilization: float | None
    reset_at: datetime | None = None
    rate_per_hour: float = 0.0
    returns_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """What the pool has left of one window: `headroom` out of `of`, in Pro plans.

    `unknown` is the number of accounts of which nothing is known; they count nowhere else.
    """

    name: str
    headroom: float
    of: int
    unknown: int
    rate_per_hour: float = 0.0
    runs_out_at: datetime | None = None


def burn(name: str, samples: Sequence[Sample], now: datetime) -> Burn | None:
    """Return how fast a window is used up; None if it is not, or if that cannot be told.

    `samples` are in order of time. The rate is the use of the last hour (of the last day, for a
    weekly window) up to now, so an account that has stopped slows down; where nothing was seen in
    that time, the mean since the window began.
    """
    length = _length(name)
    current = _current(samples, length, now) if length else []
    if length is None or len(current) < 2:
        return None
    reset_at = current[-1].reset_at
    assert reset_at is not None
    used = current[-1].utilization
    first = _start(_smooth(current), now - RECENT[name[:2]])
    if first is None or now - first.at < SHORTEST:
        first = _origin(samples, current, reset_at - length)
    if now - first.at < SHORTEST:
        return None
    rate = (used - first.utilization) / ((now - first.at) / HOUR)
    if rate <= FLAT:
        return None
    return Burn(rate, _end(SPENT - used, rate, now, reset_at))


def pool(name: str, shares: Iterable[Share], now: datetime) -> Total:
    """Return what all accounts together have left of one window, and when it runs out.

    The pool's rate is drawn from what is left now. An account that comes back adds what it then
    has, and one that is reset adds what it has used by now: what it uses until then is left out,
    so the pool lasts a little longer than is said. After the last reset that is known nothing is
    foretold.
    """
    shares = list(shares)
    known = [share for share in shares if share.utilization is not None]
    serving = [share for share in known if _returns(share, now) is None]
    left = sum(share.size * _left(share, now) for share in serving)
    rate = sum(share.size * max(share.rate_per_hour, 0.0) for share in serving)
    return Total(
        name,
        headroom=left,
        of=sum(share.size for share in known),
        unknown=len(shares) - len(known),
        rate_per_hour=rate,
        runs_out_at=_pool_end(left, rate, _gains(known, now), now),
    )


def size(tier: str) -> int:
    """Return how many Pro plans a plan is worth, by the end of its tier ("..._max_20x")."""
    match = TIMES.search(tier[-4:]) if tier.endswith("x") else None
    return max(int(match[1]), 1) if match else 1


def used_now(utilization: float | None, reset_at: datetime | None, now: datetime) -> float | None:
    """Return how far a window is used: not at all once its reset has passed; None: not known."""
    if reset_at is not None and reset_at <= now:
        return 0.0
    return utilization


def _length(name: str) -> timedelta | None:
    return LENGTHS.get("7d" if name.startswith("7d_") else name)


def _current(samples: Sequence[Sample], length: timedelta, now: datetime) -> list[Sample]:
    """Return the samples of the window that holds now, since it was last reset ahead of time."""
    seen = [sample for sample in samples if sample.at <= now]
    reset_at = seen[-1].reset_at if seen else None
    if reset_at is None or reset_at <= now:
        return []
    begun = reset_at - length - JITTER
    current: list[Sample] = []
    for sample in seen:
        if sample.reset_at is None or sample.at < begun:
            continue
        if abs(sample.reset_at - reset_at) <= JITTER:
            current.append(sample)
    return current[_fallen(_smooth(current)) :]


def _fallen(samples: Sequence[Sample]) -> int:
    """Return the place of the first sample after the last fall."""
    pairs = enumerate(zip(samples, samples[1:], strict=False), 1)
    falls = [place for place, (one, two) in pairs if one.utilization - two.utilization > FALL]
    return max(falls, default=0)


def _smooth(samples: Sequence[Sample]) -> list[Sample]:
    """Take single odd values out: each becomes the middle one of itself and its neighbours."""
    values = [sample.utilization for sample in samples]
    middle = [median(values[place - 1 : place + 2]) for place in range(1, len(values) - 1)]
    smooth = [*values[:1], *middle, *values[1:][-1:]]
    return [
        Sample(sample.at, value, sample.reset_at)
        for sample, value in zip(samples, smooth, strict=True)
    ]


def _start(samples: Sequence[Sample], since: datetime) -> Sample | None:
    """Return what held at `since`; None if nothing was seen after that."""
    if samples[-1].at < since:
        return None
    before = [sample for sample in samples if sample.at <= since]
    return before[-1] if before else samples[0]


def _origin(samples: Sequence[Sample], current: Sequence[Sample], begun: datetime) -> Sample:
    """Return the beginning of the window: unused, or as it was when it was reset ahead of time."""
    first = current[0]
    is_reset_early = any(
        sample.at < first.at
        and sample.reset_at is not None
        and first.reset_at is not None
        and abs(sample.reset_at - first.reset_at) <= JITTER
        and sample.at >= begun - JITTER
        for sample in samples
    )
    return first if is_reset_early else Sample(min(begun, first.at), 0.0, first.reset_at)


def _end(left: float, rate: float, now: datetime, before: datetime) -> datetime | None:
    """Return when `left` is used up at `rate`; None if there is nothing left, or not by then."""
    hours = left / rate if left > 0 else None
    if hours is None or hours >= (before - now) / HOUR:
        return None
    end = now + timedelta(hours=hours)
    return end if end < before else None


def _returns(share: Share, now: datetime) -> datetime | None:
    return share.returns_at if share.returns_at is not None and share.returns_at > now else None


def _left(share: Share, now: datetime) -> float:
    used = used_now(share.utilization, share.reset_at, now) or 0.0
    return min(max(SPENT - used, 0.0), SPENT)


def _gains(known: Iterable[Share], now: datetime) -> list[tuple[datetime, float]]:
    """Return when the pool gets something back, and how much, in order of time."""
    gains: list[tuple[datetime, float]] = []
    for share in known:
        back, reset_at = _returns(share, now), share.reset_at
        left = _left(share, now)
        if reset_at is not None and reset_at <= now:
            reset_at = None
        if back is not None:
            gains.append((back, share.size * left))
        if reset_at is not None:
            gains.append((max(reset_at, back or reset_at), share.size * (SPENT - left)))
    return sorted(gains)


def _pool_end(
    left: float, rate: float, gains: Iterable[tuple[datetime, float]], now: datetime
) -> datetime | None:
    if rate <= FLAT or left <= 0:
        return None
    at = now
    for moment, gain in gains:
        if end := _end(left, rate, at, moment):
            return end
        left += gain - rate * ((moment - at) / HOUR)
        at = moment
        if left <= 0:
            return moment
    return None
