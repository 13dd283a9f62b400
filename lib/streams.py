"""Facts on their way from the data plane to the database: batches, at least once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import redis
from django.db import DataError, IntegrityError

from lib.redis import for_jobs, for_requests, heed_cancellation

BUFFER = 10_000
PIPELINE = 500
MAX_LENGTH = 1_000_000
GROUP = "writers"
# One name for all workers: what one of them reads, the others are not given, and rows left behind
# are claimed by their age. A name per process would stay in Redis for ever.
CONSUMER = "writer"
TAKEOVER_MS = 30_000
RETRY_SECONDS, WATCH_SECONDS, POLL_SECONDS = 0.2, 1.0, 0.005
Row = dict[str, Any]
Write = Callable[[Sequence[Row]], None]
Lost = Callable[[int], object]
Fields = dict[str, bytes | int]
# An entry's place in its stream, from its id.
Place = tuple[int, int]
END: Place = (2**63, 0)
# What is wrong with a row, not with the database: asking again would not help.
FAULTS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    DataError,
    IntegrityError,
)
log = logging.getLogger(__name__)


class Appender:
    """Appends rows to a stream without making the request wait.

    One flusher per process and loop sends whatever is queued in one transaction. While Redis is
    away up to BUFFER rows wait in the process. What Redis has and the database not yet (so many
    rows again) is kept as well: a Redis that was emptied is given it once more, as its writers know
    a row again. `lost` counts what had to be dropped beyond that; the stream itself says so.
    """

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.lost = 0
        self._rows: deque[Fields] = deque()
        self._sending: list[Fields] = []
        self._sent: deque[tuple[Place, Fields]] = deque()
        self._unkept: tuple[int, Place] = (0, (0, 0))
        self._life = ""
        self._flusher: asyncio.Task[None] | None = None

    def append(self, row: Row) -> None:
        """Queue one row; returns at once."""
        data = orjson.dumps(row)
        if len(self._rows) >= BUFFER:
            self._rows.popleft()
            self.lost += 1
        self._rows.append({"d": data})
        self._flushing()

    async def flushed(self) -> None:
        """Wait until all that was queued is in Redis (at the end of a process, and in tests).

        From then on nobody looks whether Redis still has it.
        """
        while self._rows or self._sending:
            self._flushing()
            await asyncio.sleep(POLL_SECONDS)
        if self._flusher is not None and not self._flusher.get_loop().is_closed():
            self._flusher.cancel()
        self._sent.clear()

    def _flushing(self) -> None:
        loop = asyncio.get_running_loop()
        if self._flusher is None or self._flusher.done() or self._flusher.get_loop() is not loop:
            self._news = asyncio.Event()
            self._flusher = loop.create_task(self._flush(self._news))
        self._news.set()

    async def _flush(self, news: asyncio.Event) -> None:
        # Kept outside of this task: if it is cancelled, the next one sends them.
        batch = self._sending
        while batch or self._rows or self._sent:
            heed_cancellation()
            if not batch and not self._rows:
                # Nothing to do but to look whether Redis still has what the database has not.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), WATCH_SECONDS)
            news.clear()
            while self._rows and len(batch) < PIPELINE:
                batch.append(self._rows.popleft())
            try:
                await self._send(batch)
            except (redis.RedisError, OSError) as error:
                # Some of it may have arrived: the writer is idempotent, so send the batch whole.
                waiting = len(batch) + len(self._rows)
                log.warning("append to %s: %s; %d wait", self.stream, type(error).__name__, waiting)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            batch.clear()
            self._say_what_was_lost()

    async def _send(self, batch: list[Fields]) -> None:
        # In one transaction: nobody empties Redis between these answers.
        pipeline = for_requests().pipeline(transaction=True)
        pipeline.set(f"{self.stream}:life", secrets.token_hex(8), nx=True)
        pipeline.get(f"{self.stream}:life")
        pipeline.xrange(self.stream, count=1)
        for fields in batch:
            pipeline.xadd(self.stream, fields, maxlen=MAX_LENGTH, approximate=True)  # type: ignore[arg-type]
        _, life, oldest, *ids = await pipeline.execute()
        if self._life not in ("", life):
            self._send_again()
        elif oldest:
            self._forget_written(place_of(oldest[0][0]))
        else:
            self._forget_written(END)
        self._life = life
        for entry, fields in zip(ids, batch, strict=True):
            if len(self._sent) >= BUFFER:
                self._unkept = self._unkept[0] + 1, self._sent.popleft()[0]
            self._sent.append((place_of(entry), fields))

    def _send_again(self) -> None:
        """Queue once more what Redis had when it was emptied."""
        log.warning("append to %s: Redis was emptied; %d go again", self.stream, len(self._sent))
        self.lost += self._unkept[0]
        self._unkept = (0, (0, 0))
        self._rows.extendleft(fields for _, fields in reversed(self._sent))
        self._sent.clear()

    def _forget_written(self, oldest: Place) -> None:
        """Forget what has left the stream: it is in the database."""
        while self._sent and self._sent[0][0] < oldest:
            self._sent.popleft()
        if self._unkept[1] < oldest:
            self._unkept = (0, (0, 0))

    def _say_what_was_lost(self) -> None:
        if self.lost:
            log.error("append to %s: lost %d rows while Redis was away", self.stream, self.lost)
            self._rows.append({"lost": self.lost})
            self.lost = 0


def place_of(entry: str) -> Place:
    """Return where an entry stands, from its id."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


def drain(
    stream: str, write: Write, seconds: float = 0.8, *, lost: Lost = lambda count: None
) -> int:
    """Hand what is in the stream to `write` in batches, and return how many rows were written.

    `write` commits before it returns and must be idempotent: a row is acknowledged, and deleted,
    only then, and one that a killed worker left is claimed after TAKEOVER_MS. A row that alone
    makes `write` fail goes to `<stream>:dead`, so that it cannot hold up the others. `lost` is
    told how many rows an Appender had to drop.
    """
    end = time.monotonic() + seconds
    written = 0
    client = for_jobs()
    try:
        while time.monotonic() < end:
            # Each time: an emptied Redis has lost the group.
            _ensure_group(client, stream)
            _, claimed, *_rest = client.xautoclaim(
                stream, GROUP, CONSUMER, TAKEOVER_MS, count=PIPELINE
            )
            fresh: Any = client.xreadgroup(GROUP, CONSUMER, {stream: ">"}, count=PIPELINE)
            entries = list(claimed) + (list(fresh[0][1]) if fresh else [])
            if not entries:
                break
            _write(client, stream, entries, write, lost)
            written += len(entries)
    finally:
        client.close()
    return written


def _ensure_group(client: redis.Redis, stream: str) -> None:
    try:
        client.xgroup_create(stream, GROUP, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def _write(client: redis.Redis, stream: str, entries: list[Any], write: Write, lost: Lost) -> None:
    texts = [fields.get("d", "") for _, fields in entries if fields and "lost" not in fields]
    for count in [int(fields["lost"]) for _, fields in entries if fields and "lost" in fields]:
        lost(count)
    try:
        write([orjson.loads(text) for text in texts])
    except FAULTS:
        for text in texts:
            _write_one(client, stream, text, write)
    ids = [entry for entry, _ in entries]
    pipeline = client.pipeline(transaction=False)
    pipeline.xack(stream, GROUP, *ids)
    pipeline.xdel(stream, *ids)
    pipeline.execute()


def _write_one(client: redis.Redis, stream: str, text: str, write: Write) -> None:
    try:
        write([orjson.loads(text)])
    except FAULTS as error:
        log.error("write a row of %s: %s; moved to %s:dead", stream, type(error).__name__, stream)
        client.xadd(f"{stream}:dead", {"d": text}, maxlen=1000, approximate=True)
