"""What is on its way to the database: rows of request records that wait in their Redis stream."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from typing import Any

import orjson
import redis

from lib import streams
from lib.redis import REQUEST_TIMEOUT, for_jobs
from lib.streams import FAULTS, Place, place_of
from usage import periods
from usage.amounts import NOTHING, Amount, Prices
from usage.models import RequestRecord
from usage.recorder import STREAM

AT_ONCE = 500
# While the database is away much is given to writers that cannot write it: it is looked through in
# parts then, so that each look stays short.
MOST_GIVEN, MOST_ASKED = 10_000, 2_000
START: Place = (0, 0)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Waiter:
    """A row that waits: where in the stream, whose it is, its quarter of an hour and its use."""

    place: Place
    key: int
    period: int
    amount: Amount


class Waiting:
    """Follows the stream for some keys; each row is read and priced once.

    What the database has already, but the stream still (a writer removes a row after its commit),
    is left out. While Redis is away, what was known of it stays. `rows` are by the ids of their
    requests, `sums` by key and period.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Waiter] = {}
        self.sums: dict[tuple[int, int], Amount] = {}
        self._keys: Set[int] = frozenset()
        self._prices = Prices((), {})
        self._read_to = START
        self._turn = 0

    def read(self, keys: Set[int], prices: Prices, seconds: float = 0.25) -> None:
        """Look what waits now; a long stream is read for `seconds`, and further the next time."""
        if not keys <= self._keys or prices != self._prices:
            self.rows, self.sums, self._read_to = {}, {}, START
        self._keys, self._prices = keys, prices
        end = time.monotonic() + seconds
        try:
            with contextlib.closing(for_jobs(REQUEST_TIMEOUT)) as client:
                doubtful = self._follow(client, end)
        except (redis.RedisError, OSError) as error:
            log.warning("read what waits in %s: %s", STREAM, type(error).__name__)
            doubtful = set(self._some(list(self.rows)))
        for id in written(doubtful):
            self._drop(id)

    def _follow(self, client: redis.Redis, end: float) -> set[str]:
        """Read on, and forget what has left the stream; return what may be written already."""
        given = _given(client)
        passed = {id: row.place for id, row in self.rows.items() if row.place <= given}
        here, known_to = _unwritten(client, given) if passed else (set(), START)
        for id, place in list(passed.items()):
            if place <= known_to and place not in here:
                # Its writer has committed, then taken it out: it is in the database.
                self._drop(id)
                del passed[id]
        doubtful = set(self._some(list(passed)))
        while time.monotonic() < end:
            entries = _entries(client, self._read_to)
            for place, fields in entries:
                self._read_to = place
                doubtful |= self._take(place, fields)
            if len(entries) < AT_ONCE:
                break
        return doubtful

    def _some(self, ids: list[str]) -> list[str]:
        """Return of these as many as are asked about at a time, the next time others."""
        self._turn = (self._turn + MOST_ASKED) % max(1, len(ids))
        return (ids[self._turn :] + ids[: self._turn])[:MOST_ASKED]

    def _take(self, place: Place, fields: Mapping[str, str]) -> set[str]:
        """Note a row if it is one of our keys; its writer knows what to do with an odd one."""
        try:
            row = orjson.loads(fields["d"])
            if row["key"] not in self._keys:
                return set()
            id, period = row["request_id"], int(row["started_at"] // periods.SECONDS)
            waiter = Waiter(place, row["key"], period, self._prices.amount(row))
        except FAULTS:
            return set()
        self._drop(id)
        self.rows[id] = waiter
        self._count(waiter, waiter.amount)
        return {id}

    def _drop(self, id: str) -> None:
        if (waiter := self.rows.pop(id, None)) is not None:
            self._count(waiter, NOTHING - waiter.amount)

    def _count(self, waiter: Waiter, amount: Amount) -> None:
        place = waiter.key, waiter.period
        self.sums[place] = self.sums.get(place, NOTHING) + amount
        if self.sums[place] == NOTHING:
            del self.sums[place]


def written(ids: Collection[str]) -> set[str]:
    """Return which of these requests have a record."""
    asked, found = list(ids), set[str]()
    for first in range(0, len(asked), AT_ONCE):
        some = RequestRecord.objects.filter(request_id__in=asked[first : first + AT_ONCE])
        found.update(some.order_by().values_list("request_id", flat=True))
    return found


def _given(client: redis.Redis) -> Place:
    """Return up to where rows were given to a writer; those beyond are in no database."""
    try:
        groups: Any = client.xinfo_groups(STREAM)
    except redis.ResponseError:
        # There is no stream, so that nothing waits: whatever waited has passed.
        return streams.END
    last = (group["last-delivered-id"] for group in groups if group["name"] == streams.GROUP)
    return max(map(place_of, last), default=START)


def _unwritten(client: redis.Redis, given: Place) -> tuple[set[Place], Place]:
    """Return what was given to writers and is not confirmed yet, and how far that is known."""
    if given == streams.END:
        return set(), given
    rows: Any = client.xpending_range(STREAM, streams.GROUP, "-", "+", MOST_GIVEN)
    places = {place_of(row["message_id"]) for row in rows}
    return places, max(places) if len(rows) == MOST_GIVEN else given


def _entries(client: redis.Redis, after: Place) -> list[tuple[Place, Mapping[str, str]]]:
    """Return what stands after a place, the next of it."""
    found: Any = client.xrange(STREAM, f"({after[0]}-{after[1]}", "+", AT_ONCE)
    return [(place_of(entry), fields) for entry, fields in found]
