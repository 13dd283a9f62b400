"""A value of the database kept in the process for a moment, so that requests need not ask."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from django.db import Error as DatabaseError
from django.db import OperationalError

from lib import bus, db

T = TypeVar("T")
log = logging.getLogger(__name__)

FRESH, STALE, DEAD = 1.0, 5.0, 60.0
# A database that is away is asked again after so long, not by each request.
SPARED = 0.5
# For a first value, and for a newer one.
PATIENCE, SHORT_PATIENCE = 3.0, 1.0
MOST_READS = 3


class Snapshot(Generic[T]):
    """`load()` (blocking, ORM) kept for seconds.

    Younger than FRESH: given as it is. Up to STALE: given, and read anew behind the request. Older:
    the request waits for one read, shared by all that wait; if the database is away, or takes
    longer than SHORT_PATIENCE, the old value serves until it is DEAD seconds old, then a
    DatabaseError is raised. A database that was away is not asked again before SPARED seconds. A
    change announced on `topic` (lib/bus.py) makes the value old at once.
    """

    def __init__(
        self,
        load: Callable[[], T],
        clock: Callable[[], float] = time.monotonic,
        *,
        topic: str = "",
    ) -> None:
        self._load = load
        self._clock = clock
        self._topic = topic
        if topic:
            bus.on(topic, self.invalidate)
        self._value: T | None = None
        self._at = self._failed_at = float("-inf")
        # Replaced by every change; a new object, so that changes from several threads all count.
        self._version, self._read_version = object(), object()
        self._reading: asyncio.Task[T] | None = None
        self._reading_since = 0.0

    async def get(self, *, max_age: float = STALE) -> T:
        """Return the value, at most `max_age` seconds old while the database answers."""
        if self._topic:
            bus.listen()
        known = self._value is not None and self._read_version is self._version
        age = self._clock() - self._at
        if self._value is not None and known and age < FRESH:
            return self._value
        if self._value is not None and age <= DEAD and self._clock() - self._failed_at < SPARED:
            return self._value
        reading = self._read()
        if self._value is not None and known and age < max_age:
            return self._value
        # Counted from its start: a read that hangs holds up nobody who comes later.
        patience = PATIENCE if self._value is None else SHORT_PATIENCE
        waited = time.monotonic() - self._reading_since
        done, _ = await asyncio.wait({reading}, timeout=max(0.0, patience - waited))
        try:
            if not done:
                raise OperationalError("the database takes too long")
            return reading.result()
        except DatabaseError:
            if self._value is None or self._clock() - self._at > DEAD:
                raise
            return self._value

    def invalidate(self) -> None:
        """Make the next `get` read anew (something is known to have changed)."""
        self._version = object()

    def reset(self) -> None:
        """Forget everything (for tests)."""
        self._value, self._reading = None, None
        self._at = self._failed_at = float("-inf")

    def _read(self) -> asyncio.Task[T]:
        # A read that began in another, ended loop can never finish.
        running = self._reading
        if running is not None and running.get_loop() is not asyncio.get_running_loop():
            running = None
        if running is None or running.done():
            running = self._reading = asyncio.create_task(self._read_once())
            running.add_done_callback(_noticed)
            self._reading_since = time.monotonic()
        return running

    async def _read_once(self) -> T:
        # A change announced while we read may not be in what we read: read once more, but not for
        # ever. The next `get` sees that the last one is old already.
        for _ in range(MOST_READS):
            version, started = self._version, self._clock()
            try:
                value = await db.in_thread(self._load)
            except DatabaseError:
                self._failed_at = self._clock()
                raise
            if version is self._version:
                break
        self._value, self._at, self._read_version = value, started, version
        self._failed_at = float("-inf")
        return value


def _noticed(task: asyncio.Task[T]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.warning("read snapshot: %s", type(task.exception()).__name__)
