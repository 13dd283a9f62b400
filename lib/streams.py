"""Facts on their way from the data plane to the database: batches, at least once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import redis
from django.db import DataError, IntegrityError

from lib.redis import for_jobs, for_requests

BUFFER = 10_000
PIPELINE = 500
MAX_LENGTH = 1_000_000
GROUP = "writers"
# One name for all workers: what one of them reads, the others are not given, and rows left behind
# are claimed by their age. A name per process would stay in Redis for ever.
CONSUMER = "writer"
TAKEOVER_MS = 30_000
RETRY_SECONDS = 0.2
Row = dict[str, Any]
Write = Callable[[Sequence[Row]], None]
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

    One flusher per process and loop sends whatever is queued in one pipeline. While Redis is away
    up to BUFFER rows wait in the process; `lost` counts what had to be dropped beyond that.
    """

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.lost = 0
        self._rows: deque[bytes] = deque()
        self._sending: list[bytes] = []
        self._flusher: asyncio.Task[None] | None = None

    def append(self, row: Row) -> None:
        """Queue one row; returns at once."""
        data = orjson.dumps(row)
        if len(self._rows) >= BUFFER:
            self._rows.popleft()
            self.lost += 1
        self._rows.append(data)
        self._flushing()

    async def flushed(self) -> None:
        """Wait until all that was queued is in Redis (at the end of a process, and in tests)."""
        if self._rows or self._sending:
            await self._flushing()

    def _flushing(self) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        if self._flusher is None or self._flusher.done() or self._flusher.get_loop() is not loop:
            self._flusher = loop.create_task(self._flush())
        return self._flusher

    async def _flush(self) -> None:
        # Kept outside of this task: if it is cancelled, the next one sends them.
        batch = self._sending
        while batch or self._rows:
            while self._rows and len(batch) < PIPELINE:
                batch.append(self._rows.popleft())
            pipeline = for_requests().pipeline(transaction=False)
            for row in batch:
                pipeline.xadd(self.stream, {"d": row}, maxlen=MAX_LENGTH, approximate=True)
            try:
                await pipeline.execute()
            except (redis.RedisError, OSError) as error:
                # Some of it may have arrived: the writer is idempotent, so send the batch whole.
                waiting = len(batch) + len(self._rows)
                log.warning("append to %s: %s; %d wait", self.stream, type(error).__name__, waiting)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            batch.clear()
            if self.lost:
                log.error("append to %s: lost %d rows while Redis was away", self.stream, self.lost)
                self.lost = 0


def drain(stream: str, write: Write, seconds: float = 0.8) -> int:
    """Hand what is in the stream to `write` in batches, and return how many rows were written.

    `write` commits before it returns and must be idempotent: a row is acknowledged, and deleted,
    only then, and one that a killed worker left is claimed after TAKEOVER_MS. A row that alone
    makes `write` fail goes to `<stream>:dead`, so that it cannot hold up the others.
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
            _write(client, stream, entries, write)
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


def _write(client: redis.Redis, stream: str, entries: list[Any], write: Write) -> None:
    texts = [fields.get("d", "") for _, fields in entries if fields]
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
