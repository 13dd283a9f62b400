"""Whether a key may spend more today, this week and this month; asked at the door.

What counts is in the usage records or on its way there (`figures`, read behind the requests), and
what requests of this process use that the figures do not hold yet. See docs/clients.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any

from django.db import OperationalError
from django.db.models import Q
from django.utils import timezone

from lib.snapshot import Snapshot
from sessions_limit.errors import Spent
from sessions_limit.figures import Figures, Reader
from sessions_limit.keys import PERIODS, Budget, Key
from sessions_limit.models import ClientKey
from sessions_limit.spans import Span, named, span
from sessions_limit.standing import in_words
from usage.amounts import NOTHING, Amount, Prices

# The columns of a request's record as far as they are known by now: account, provider, model,
# started_at (epoch seconds), and what was used.
Tell = Callable[[], Mapping[str, Any]]
# So often a request under way is asked what it has used.
LOOK_SECONDS = 0.25
# As many rows of a process wait for Redis at most; what is beyond that gets no record.
MOST_OURS = 10_000
COLUMNS = [f"{unit}_per_{period}" for unit in ("tokens", "cost") for period in PERIODS]
HAS_BUDGET = reduce(or_, (Q(**{f"{column}__isnull": False}) for column in COLUMNS))


@dataclass(slots=True, eq=False)
class Request:
    """A request of this process, until the figures hold it; `tell` is None when it is over."""

    tell: Tell | None
    row: Mapping[str, Any]
    looked_at: float
    prices: Prices | None = None
    amount: Amount = NOTHING

    def used(self, prices: Prices) -> Amount:
        """Return what it has used, as far as its answer has told; priced anew if need be."""
        now = time.monotonic()
        if self.tell is not None and now - self.looked_at >= LOOK_SECONDS:
            self.look(now)
        if self.prices is not prices:
            self.prices, self.amount = prices, prices.amount(self.row)
        return self.amount

    def look(self, now: float) -> None:
        """Ask what it has used by now."""
        assert self.tell is not None
        row, self.looked_at = self.tell(), now
        if row != self.row:
            self.row, self.prices = row, None


_ours: dict[int, dict[str, Request]] = {}
_reader = Reader()
_last: Figures | None = None


async def check(key: Key) -> None:
    """Raise Spent if a budget of the key is used up, with the seconds until it is renewed.

    A request is let in while less than the budget is used, whatever it will use itself. Raise a
    DatabaseError if nobody knows any more what is used. A key without budgets costs nothing.
    """
    if not key.budgets:
        return
    figures = await _figures(key)
    if figures is None:
        return
    now = timezone.now()
    ours = list(_not_in(figures, key.id))
    spent = []
    for budget in key.budgets:
        within, used = _known(figures, key, budget, now)
        begin = within.start.timestamp()
        used += sum(getattr(use, budget.unit) for began, use in ours if began >= begin)
        if used >= budget.most:
            spent.append((within.end, budget))
    if spent:
        # Before the last of them is renewed nothing is let in.
        until, budget = max(spent, key=lambda one: one[0])
        raise Spent((until - now).total_seconds(), _say(budget, until, key.time_zone))


def begun(key: Key, id: str, tell: Tell) -> None:
    """Count a request from now on, with what `tell` says of it by and by."""
    if key.budgets:
        _ours.setdefault(key.id, {})[id] = Request(tell, tell(), time.monotonic())


def ended(key: Key, id: str) -> None:
    """Note that a request is over, and has its record on the way."""
    requests = _ours.get(key.id, {})
    if (request := requests.get(id)) is None:
        return
    request.look(time.monotonic())
    request.tell = None
    if len(requests) > MOST_OURS:
        oldest = next(id for id, request in requests.items() if request.tell is None)
        del requests[oldest]


def load() -> Figures:
    """Read the figures of all keys that have budgets (blocking)."""
    rows = ClientKey.objects.filter(HAS_BUDGET, revoked_at=None).order_by()
    ours = [id for requests in list(_ours.values()) for id in list(requests)]
    return _reader.read(dict(rows.values_list("pk", "time_zone")), timezone.now(), ours)


snapshot: Snapshot[Figures] = Snapshot(load)


async def _figures(key: Key) -> Figures | None:
    """Return figures that know the key; None: it has no budgets any more, or is no key."""
    global _last
    asked_at = time.monotonic()
    figures = await snapshot.get()
    if not _knows(figures, key):
        # It got its budgets, or its time zone, a moment ago.
        snapshot.invalidate()
        figures = await snapshot.get()
    if figures is not _last:
        _last = figures
        _forget(figures)
    if _knows(figures, key):
        return figures
    if figures.read_at < asked_at:
        raise OperationalError("what the key has used is not known")
    return None


def _knows(figures: Figures, key: Key) -> bool:
    known = figures.keys.get(key.id)
    return known is not None and known.zone == key.time_zone


def _known(figures: Figures, key: Key, budget: Budget, now: datetime) -> tuple[Span, int]:
    """Return the budget's period, and what is known to be used of it."""
    known = figures.keys[key.id]
    within = known.spans[budget.period]
    if now < within.end:
        return within, getattr(known.used[budget.period], budget.unit)
    # It ended since the figures were read.
    return span(budget.period, now, key.time_zone), 0


def _not_in(figures: Figures, key: int) -> Iterator[tuple[float, Amount]]:
    """Yield when our requests began and what they used, of those that the figures do not hold."""
    for id, request in _ours.get(key, {}).items():
        if id not in figures.counted:
            yield request.row["started_at"], request.used(figures.prices)


def _forget(figures: Figures) -> None:
    """Forget what is over and in the figures."""
    for key, requests in list(_ours.items()):
        for id in requests.keys() & figures.counted:
            if requests[id].tell is None:
                del requests[id]
        if not requests:
            del _ours[key]


def _say(budget: Budget, until: datetime, zone: str) -> str:
    if not budget.most:
        # The next one is as empty, so nobody is told to wait for it.
        return f"This key may spend nothing: {in_words(budget.unit, 0)} a {budget.period}."
    at = until.astimezone(named(zone))
    return (
        f"The budget of {in_words(budget.unit, budget.most)} a {budget.period} of this key is used "
        f"up. It is renewed on {at.day} {at:%B} at {at:%H:%M} ({at.tzinfo})."
    )


def reset() -> None:
    """Forget everything (for tests)."""
    global _reader, _last
    _ours.clear()
    _reader, _last = Reader(), None
    snapshot.reset()
