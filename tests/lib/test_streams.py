"""Facts on their way to the database: nothing lost, nothing that holds up the rest."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from django.db import DataError, IntegrityError, OperationalError

from lib import streams
from lib.streams import Appender, Row, drain
from tests.lib.conftest import OwnValkey

pytestmark = pytest.mark.usefixtures("loop_ends")
ROOT = Path(__file__).resolve().parents[2]
STREAM = "things"


class Table:
    """Where rows are written; one of them may be refused, or all of them."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.refuses: dict[int, Exception] = {}
        self.away: Exception | None = None

    def write(self, rows: Sequence[Row]) -> None:
        if self.away is not None:
            raise self.away
        for row in rows:
            if row["n"] in self.refuses:
                raise self.refuses[row["n"]]
        self.rows += [row["n"] for row in rows]


def put(valkey: OwnValkey, numbers: Sequence[int], **fields: str) -> None:
    with valkey.client() as client:
        pipeline = client.pipeline(transaction=False)
        for number in numbers:
            pipeline.xadd(STREAM, fields or {"d": orjson.dumps({"n": number})})
        pipeline.execute()


def pending(valkey: OwnValkey) -> int:
    with valkey.client() as client:
        return int(client.xpending(STREAM, streams.GROUP)["pending"])


def waiting(valkey: OwnValkey) -> int:
    with valkey.client() as client:
        return int(client.xlen(STREAM))


def dead(valkey: OwnValkey) -> list[str]:
    with valkey.client() as client:
        return [fields["d"] for _, fields in client.xrange(f"{STREAM}:dead")]


def grow_old(valkey: OwnValkey) -> None:
    """Let what is pending be as old as if its worker had died half a minute ago."""
    with valkey.client() as client:
        ids = [
            e["message_id"] for e in client.xpending_range(STREAM, streams.GROUP, "-", "+", 9999)
        ]
        client.xclaim(STREAM, streams.GROUP, "gone", 0, ids, idle=streams.TAKEOVER_MS + 1)


async def test_rows_arrive_in_order_and_leave_nothing_behind(own_valkey: OwnValkey) -> None:
    appender, table = Appender(STREAM), Table()
    for n in range(1234):
        appender.append({"n": n})
    await appender.flushed()

    assert drain(STREAM, table.write) == 1234

    assert table.rows == list(range(1234))
    assert (pending(own_valkey), waiting(own_valkey)) == (0, 0)
    assert drain(STREAM, table.write) == 0


async def test_what_a_killed_worker_wrote_is_written_again(own_valkey: OwnValkey) -> None:
    table = Table()
    put(own_valkey, range(10))
    program = (
        "import os, signal, sys, django\n"
        "django.setup()\n"
        "from django.conf import settings\n"
        "settings.REDIS_URL = sys.argv[1]\n"
        "from lib import streams\n"
        f"streams.drain({STREAM!r}, lambda rows: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, own_valkey.url],
        env={"DJANGO_SETTINGS_MODULE": "proxy_project.settings", "CAROUSEL_ENV_FILE": ""}
        | dict(os.environ),
        cwd=ROOT,
        check=False,
        timeout=30,
    )
    assert killed.returncode == -9
    assert pending(own_valkey) == 10

    assert drain(STREAM, table.write) == 0
    grow_old(own_valkey)
    assert drain(STREAM, table.write) == 10

    assert table.rows == list(range(10))
    assert (pending(own_valkey), waiting(own_valkey)) == (0, 0)


@pytest.mark.parametrize(
    "fault",
    [
        ValueError("x"),
        TypeError("x"),
        KeyError("x"),
        IndexError("x"),
        OverflowError("too large for SQLite"),
        DataError("NUL"),
        IntegrityError("negative"),
    ],
)
async def test_a_poison_row_is_put_aside_and_the_others_are_written(
    own_valkey: OwnValkey, fault: Exception
) -> None:
    table = Table()
    table.refuses[3] = fault
    put(own_valkey, range(6))

    drain(STREAM, table.write)

    assert table.rows == [0, 1, 2, 4, 5]
    assert [orjson.loads(text) for text in dead(own_valkey)] == [{"n": 3}]
    assert (pending(own_valkey), waiting(own_valkey)) == (0, 0)


@pytest.mark.parametrize("fields", [{"d": "{not json"}, {"x": "1"}, {"d": "[]"}, {"d": "null"}])
async def test_an_entry_that_is_no_row_is_put_aside(
    own_valkey: OwnValkey, fields: dict[str, str]
) -> None:
    table = Table()
    put(own_valkey, [0])
    put(own_valkey, [1], **fields)
    put(own_valkey, [2])

    drain(STREAM, table.write)

    assert table.rows == [0, 2]
    assert dead(own_valkey) == [fields.get("d", "")]
    assert (pending(own_valkey), waiting(own_valkey)) == (0, 0)


async def test_a_database_that_is_away_loses_no_row(own_valkey: OwnValkey) -> None:
    table = Table()
    put(own_valkey, range(10))
    table.away = OperationalError("database is locked")

    with pytest.raises(OperationalError):
        drain(STREAM, table.write)
    assert (pending(own_valkey), waiting(own_valkey)) == (10, 10)
    assert dead(own_valkey) == []

    table.away = None
    put(own_valkey, [10])
    drain(STREAM, table.write)
    grow_old(own_valkey)
    drain(STREAM, table.write)

    assert table.rows == [10, *range(10)]
    assert (pending(own_valkey), waiting(own_valkey)) == (0, 0)


async def test_a_database_that_goes_away_among_poison_rows_loses_none(
    own_valkey: OwnValkey,
) -> None:
    table = Table()
    table.refuses = {1: ValueError("poison"), 2: OperationalError("away")}
    put(own_valkey, range(4))

    with pytest.raises(OperationalError):
        drain(STREAM, table.write)
    assert pending(own_valkey) == 4
    del table.refuses[2]
    grow_old(own_valkey)
    drain(STREAM, table.write)

    assert set(table.rows) == {0, 2, 3}
    assert set(dead(own_valkey)) == {'{"n":1}'}


async def test_rows_that_could_not_be_acknowledged_are_written_again(own_valkey: OwnValkey) -> None:
    table = Table()
    put(own_valkey, range(5))

    def write(rows: Sequence[Row]) -> None:
        table.write(rows)
        own_valkey.kill()

    with pytest.raises(redis.ConnectionError):
        drain(STREAM, write)
    own_valkey.start()
    grow_old(own_valkey)
    drain(STREAM, table.write)

    assert table.rows == [*range(5), *range(5)]
    assert (pending(own_valkey), waiting(own_valkey)) == (0, 0)


async def test_an_emptied_redis_is_used_again(own_valkey: OwnValkey) -> None:
    table = Table()
    put(own_valkey, range(3))
    drain(STREAM, table.write)
    with own_valkey.client() as client:
        client.flushall()
    put(own_valkey, [3])

    assert drain(STREAM, table.write) == 1
    assert table.rows == [0, 1, 2, 3]


async def test_a_redis_emptied_in_the_middle_is_used_again(own_valkey: OwnValkey) -> None:
    table = Table()
    put(own_valkey, [0])

    def write(rows: Sequence[Row]) -> None:
        table.write(rows)
        if table.rows == [0]:
            with own_valkey.client() as client:
                client.flushall()
            put(own_valkey, [1])

    assert drain(STREAM, write) == 2
    assert table.rows == [0, 1]


async def test_draining_stops_by_its_time(own_valkey: OwnValkey) -> None:
    table = Table()
    put(own_valkey, range(3 * streams.PIPELINE))

    def write(rows: Sequence[Row]) -> None:
        table.write(rows)
        time.sleep(0.1)

    assert drain(STREAM, write, seconds=0.05) == streams.PIPELINE
    assert waiting(own_valkey) == 2 * streams.PIPELINE
    assert drain(STREAM, write, seconds=30) == 2 * streams.PIPELINE


async def test_two_workers_at_once_write_each_row_once(own_valkey: OwnValkey) -> None:
    table = Table()
    put(own_valkey, range(5000))

    await asyncio.gather(*(asyncio.to_thread(drain, STREAM, table.write, 5) for _ in range(4)))

    assert sorted(table.rows) == list(range(5000))


async def test_workers_that_come_and_go_leave_no_names_behind(own_valkey: OwnValkey) -> None:
    for number in range(3):
        put(own_valkey, [number])
        drain(STREAM, Table().write)

    with own_valkey.client() as client:
        assert len(client.xinfo_consumers(STREAM, streams.GROUP)) == 1


async def test_rows_wait_in_order_while_redis_is_away(own_valkey: OwnValkey) -> None:
    appender, table = Appender(STREAM), Table()
    appender.append({"n": 0})
    await appender.flushed()
    own_valkey.kill()
    for n in range(1, 1200):
        appender.append({"n": n})
    await asyncio.sleep(0.3)

    own_valkey.start()
    appender.append({"n": 1200})
    await asyncio.wait_for(appender.flushed(), 5)
    drain(STREAM, table.write)

    assert table.rows == list(range(1201))


async def test_a_redis_that_hangs_holds_nobody_up(own_valkey: OwnValkey) -> None:
    appender = Appender(STREAM)
    own_valkey.freeze()
    began = time.monotonic()

    for n in range(100):
        appender.append({"n": n})
        await asyncio.sleep(0)

    assert time.monotonic() - began < 0.2
    assert appender._flusher is not None
    appender._flusher.cancel()
    await asyncio.wait([appender._flusher])


async def test_what_the_buffer_cannot_hold_is_counted(
    own_valkey: OwnValkey, caplog: pytest.LogCaptureFixture
) -> None:
    appender, table = Appender(STREAM), Table()
    own_valkey.kill()

    with caplog.at_level(logging.ERROR, "lib.streams"):
        for n in range(streams.BUFFER + 7):
            appender.append({"n": n})
        assert appender.lost == 7
        own_valkey.start()
        await asyncio.wait_for(appender.flushed(), 10)

    assert "lost 7 rows" in caplog.text
    lost: list[int] = []
    drain(STREAM, table.write, 5, lost=lost.append)
    assert table.rows == list(range(7, streams.BUFFER + 7))
    assert lost == [7]


async def test_what_an_emptied_redis_had_is_given_to_it_again(
    own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WATCH_SECONDS", 0.05)
    appender, table = Appender(STREAM), Table()
    for n in range(3):
        appender.append({"n": n})
    while waiting(own_valkey) < 3:
        await asyncio.sleep(0.01)
    with own_valkey.client() as client:
        client.flushall()

    while waiting(own_valkey) < 3:
        await asyncio.sleep(0.01)
    drain(STREAM, table.write)

    assert table.rows == [0, 1, 2]
    await appender.flushed()


async def test_what_is_in_the_database_is_not_given_to_redis_again(
    own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WATCH_SECONDS", 0.05)
    appender, table = Appender(STREAM), Table()
    for n in range(3):
        appender.append({"n": n})
    while waiting(own_valkey) < 3:
        await asyncio.sleep(0.01)
    drain(STREAM, table.write)
    await asyncio.sleep(0.2)
    with own_valkey.client() as client:
        client.flushall()

    appender.append({"n": 3})
    await appender.flushed()
    drain(STREAM, table.write)

    assert table.rows == [0, 1, 2, 3]
    assert appender._flusher is not None


async def test_what_an_emptied_redis_had_beyond_what_is_kept_is_counted(
    own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(streams, "BUFFER", 10)
    appender, table = Appender(STREAM), Table()
    for n in range(15):
        appender.append({"n": n})
        while waiting(own_valkey) < n + 1:
            await asyncio.sleep(0.001)
    with own_valkey.client() as client:
        client.flushall()

    while waiting(own_valkey) < 11:
        await asyncio.sleep(0.01)
    lost: list[int] = []
    drain(STREAM, table.write, lost=lost.append)

    assert table.rows == list(range(5, 15))
    assert lost == [5]
    await appender.flushed()


async def test_a_flusher_that_is_cancelled_leaves_its_rows_to_the_next(
    own_valkey: OwnValkey,
) -> None:
    appender, table = Appender(STREAM), Table()
    own_valkey.kill()
    for n in range(700):
        appender.append({"n": n})
    await asyncio.sleep(0.05)
    assert appender._flusher is not None
    appender._flusher.cancel()
    await asyncio.wait([appender._flusher])

    own_valkey.start()
    await asyncio.wait_for(appender.flushed(), 5)
    drain(STREAM, table.write)

    assert table.rows == list(range(700))


def test_an_appender_goes_on_in_the_next_loop(own_valkey: OwnValkey) -> None:
    from lib import redis as clients

    appender, table = Appender(STREAM), Table()

    async def append(n: int, wait: bool) -> None:
        appender.append({"n": n})
        if wait:
            await appender.flushed()
        await clients.close()

    asyncio.run(append(0, wait=True))
    asyncio.run(append(1, wait=False))
    asyncio.run(append(2, wait=True))
    drain(STREAM, table.write)

    assert table.rows == [0, 1, 2]


async def test_a_row_that_is_no_json_costs_no_other_row(own_valkey: OwnValkey) -> None:
    appender: Any = Appender(STREAM)
    own_valkey.kill()
    for n in range(streams.BUFFER):
        appender.append({"n": n})

    with pytest.raises(TypeError):
        appender.append({"n": object()})

    assert (len(appender._rows), appender.lost) == (streams.BUFFER, 0)
    appender._flusher.cancel()
    await asyncio.wait([appender._flusher])
