"""Who is alive: each process that matters leaves name, host, pid and time in Redis now and then."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from typing import Any

import orjson

from lib.redis import for_jobs

KEY = "heartbeats"
# Every so many seconds one is due; after so many it is forgotten.
PERIOD, GONE = 10.0, 60.0
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last sign of life of one process; `at` is epoch seconds by its own clock."""

    name: str
    host: str
    pid: int
    at: float


def beat(name: str, now: float | None = None) -> None:
    """Leave a sign of life of this process; raise RedisError or OSError."""
    at = time.time() if now is None else now
    who = orjson.dumps([name, socket.gethostname(), os.getpid()]).decode()
    with contextlib.closing(for_jobs(PATIENCE)) as client:
        pipeline = client.pipeline(transaction=False)
        pipeline.zadd(KEY, {who: at})
        pipeline.zremrangebyscore(KEY, "-inf", at - GONE)
        pipeline.execute()


def living(now: float | None = None) -> list[Heartbeat]:
    """Return who gave a sign of life within GONE seconds, the latest first; raise as `beat`."""
    since = (time.time() if now is None else now) - GONE
    with contextlib.closing(for_jobs(PATIENCE)) as client:
        found: Any = client.zrevrangebyscore(KEY, "+inf", since, withscores=True)
    signs = [(orjson.loads(str(who)), float(at)) for who, at in found]
    return [Heartbeat(name, host, pid, at) for (name, host, pid), at in signs]
