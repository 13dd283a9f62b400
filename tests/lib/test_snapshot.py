"""A value of the database kept for a moment: its age, its readers, and a database that is away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from django.db import OperationalError

from lib import db
from lib.snapshot import DEAD, FRESH, SPARED, STALE, Snapshot


class Source:
    """What is read: counts the reads, takes its time, and may be away."""

    def __init__(self) -> None:
        self.reads = 0
        self.fails = False
        self.now = 1000.0
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.snapshot = Snapshot(self.load, lambda: self.now)

    def load(self) -> str:
        self.reads += 1
        value = f"read {self.reads}"
        assert self.goes_on.wait(5)
        if self.fails:
            raise OperationalError("away")
        return value

    async def is_reading(self, count: int) -> None:
        while self.reads < count:
            await asyncio.sleep(0.001)

    async def is_read(self) -> None:
        """Wait for the read behind a request."""
        reading = self.snapshot._reading
        assert reading is not None
        await asyncio.wait([reading])


@pytest.fixture
def source() -> Iterator[Source]:
    yield Source()
    db.reset()


async def test_a_fresh_value_is_given_as_it_is(source: Source) -> None:
    await source.snapshot.get()

    source.now += FRESH - 0.01

    assert await source.snapshot.get() == "read 1"
    assert source.reads == 1


async def test_a_value_of_some_age_is_given_and_read_behind_the_request(source: Source) -> None:
    await source.snapshot.get()
    source.now += FRESH
    source.goes_on.clear()

    assert await source.snapshot.get() == "read 1"
    assert await source.snapshot.get() == "read 1"
    source.goes_on.set()
    await source.is_read()

    assert await source.snapshot.get() == "read 2"
    assert source.reads == 2


async def test_a_stale_value_is_not_given(source: Source) -> None:
    await source.snapshot.get()

    source.now += STALE

    assert await source.snapshot.get() == "read 2"


async def test_who_cannot_use_a_value_of_some_age_waits_for_a_newer_one(source: Source) -> None:
    await source.snapshot.get()

    source.now += FRESH

    assert await source.snapshot.get(max_age=FRESH) == "read 2"


async def test_all_who_wait_share_one_read(source: Source) -> None:
    source.goes_on.clear()
    waiting = [asyncio.create_task(source.snapshot.get()) for _ in range(50)]
    await source.is_reading(1)

    source.goes_on.set()

    assert set(await asyncio.gather(*waiting)) == {"read 1"}
    assert source.reads == 1


async def test_who_gives_up_does_not_end_the_read_of_the_others(source: Source) -> None:
    source.goes_on.clear()
    first, second = (asyncio.create_task(source.snapshot.get()) for _ in range(2))
    await source.is_reading(1)

    first.cancel()
    source.goes_on.set()

    assert await second == "read 1"
    assert first.cancelled()


async def test_a_change_makes_the_next_request_read(source: Source) -> None:
    await source.snapshot.get()

    source.snapshot.invalidate()

    assert await source.snapshot.get() == "read 2"
    assert await source.snapshot.get() == "read 2"


async def test_a_change_during_a_read_reads_again(source: Source) -> None:
    source.goes_on.clear()
    waiting = asyncio.create_task(source.snapshot.get())
    await source.is_reading(1)

    source.snapshot.invalidate()
    source.goes_on.set()

    assert await waiting == "read 2"
    assert await source.snapshot.get() == "read 2"


async def test_a_change_during_the_read_behind_a_request_is_not_missed(source: Source) -> None:
    await source.snapshot.get()
    source.now += FRESH
    source.goes_on.clear()
    assert await source.snapshot.get() == "read 1"
    await source.is_reading(2)

    source.snapshot.invalidate()
    source.goes_on.set()

    assert await source.snapshot.get() == "read 3"


async def test_the_age_counts_from_the_start_of_the_read(source: Source) -> None:
    source.goes_on.clear()
    waiting = asyncio.create_task(source.snapshot.get())
    await source.is_reading(1)
    source.now += STALE
    source.goes_on.set()
    await waiting

    assert await source.snapshot.get() == "read 2"


@pytest.mark.parametrize("announced", [False, True])
async def test_while_the_database_is_away_the_old_value_serves_a_minute(
    source: Source, announced: bool
) -> None:
    await source.snapshot.get()
    source.fails = True
    if announced:
        source.snapshot.invalidate()

    source.now += DEAD
    assert await source.snapshot.get() == "read 1"
    source.now += 0.01
    with pytest.raises(OperationalError):
        await source.snapshot.get()

    source.fails = False
    assert (await source.snapshot.get()).startswith("read")
    assert source.reads == 4


async def test_a_database_that_is_away_is_not_asked_by_each_request(source: Source) -> None:
    await source.snapshot.get()
    source.fails = True

    source.now += STALE
    for _ in range(20):
        assert await source.snapshot.get(max_age=FRESH) == "read 1"
    assert source.reads == 2

    source.fails = False
    source.now += SPARED
    assert await source.snapshot.get() == "read 3"


async def test_without_any_value_the_databases_error_is_raised(source: Source) -> None:
    source.fails = True

    with pytest.raises(OperationalError):
        await source.snapshot.get()


async def test_a_failed_read_behind_a_request_harms_nobody(source: Source) -> None:
    await source.snapshot.get()
    source.now += FRESH
    source.fails = True

    assert await source.snapshot.get() == "read 1"
    await source.is_read()
    assert await source.snapshot.get() == "read 1"


def test_it_serves_one_loop_after_another(source: Source) -> None:
    async def leave_while_reading() -> None:
        source.goes_on.clear()
        reading = asyncio.create_task(source.snapshot.get())
        await source.is_reading(source.reads + 1)
        reading.cancel()
        source.goes_on.set()

    assert asyncio.run(source.snapshot.get()) == "read 1"
    assert asyncio.run(source.snapshot.get()) == "read 1"
    source.snapshot.invalidate()
    asyncio.run(leave_while_reading())

    assert asyncio.run(source.snapshot.get()).startswith("read")
    assert source.snapshot._value != "read 1"


def test_it_serves_two_loops_at_once(source: Source) -> None:
    values: list[str] = []

    async def keep_asking() -> None:
        for _ in range(50):
            source.snapshot.invalidate()
            values.append(await asyncio.wait_for(source.snapshot.get(), 5))

    threads = [threading.Thread(target=asyncio.run, args=[keep_asking()]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(values) == 100


async def test_the_real_clock_is_used_by_default() -> None:
    snapshot = Snapshot(time.monotonic)

    assert await snapshot.get() == await snapshot.get()
    db.reset()
