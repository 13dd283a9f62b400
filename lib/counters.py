"""What this process counts, and where it is added up over all processes: in Redis.

To count costs a dictionary's update, a level an attribute's. What is new is sent every few seconds
and at the end of a process; one that is killed loses what it counted since. While Redis is away it
is kept.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import orjson
import redis

from lib.redis import for_jobs, for_requests

COUNTERS, PROCESSES = "metrics:counters", "metrics:processes"
PUSH_SECONDS, SAMPLE_SECONDS = 10.0, 0.5
# A process that has not told of itself for so long is gone, and so is what it had in flight.
GONE_SECONDS = 35
REMEMBERED_SECONDS = 3600
TIMEOUT = 2.0
# Of what is seen, Redis keeps a sketch of 12 KB for each slot; these are told of as one.
SLOT_SECONDS, SLOTS = 300, 12
MOST_SEEN = 100_000
COMMAND = "command"
LAG = "event_loop_lag_seconds"
Key = tuple[str, ...]
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Level:
    """How much there is of something just now; changed in one thread only."""

    value: int = 0


@dataclass(slots=True)
class Reading:
    """What all processes have counted, and what each that lives tells of itself.

    `seen` is about how many different values were seen in the last hour, by their name.
    """

    counters: dict[Key, float] = field(default_factory=dict)
    processes: list[dict[str, str]] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)


class Deltas:
    """What was counted since the last push; safe in threads.

    A counter's name and labels are its key. A level (in flight) goes up and down and is pushed as
    it stands, a peak is the largest value since the last push.
    """

    def __init__(self) -> None:
        self._levels: dict[str, Level] = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything (in a forked child, whose parent sends it, and for tests)."""
        self.role = COMMAND
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._lock, self._busy = threading.Lock(), threading.Lock()
        self._added: dict[Key, float] = {}
        self._peaks: dict[str, float] = {}
        self._seen: dict[str, set[str]] = {}
        self._sending: dict[Key, float] = {}
        self._number = 0
        self._pushed_at = time.monotonic()
        for level in self._levels.values():
            level.value = 0

    def add(self, *key: str, by: float = 1) -> None:
        """Add to a counter: its name, then its labels' values."""
        with self._lock:
            self._added[key] = self._added.get(key, 0) + by

    def add_all(self, counted: Mapping[Key, float]) -> None:
        """Add to many counters at once."""
        with self._lock:
            for key, by in counted.items():
                self._added[key] = self._added.get(key, 0) + by

    def see(self, name: str, values: Iterable[str]) -> None:
        """Note values of which it is told how many different ones there were."""
        with self._lock:
            seen = self._seen.setdefault(name, set())
            if len(seen) < MOST_SEEN:
                seen.update(values)

    def level(self, name: str) -> Level:
        """Return the level of this name."""
        return self._levels.setdefault(name, Level())

    def peak(self, name: str, value: float) -> None:
        """Keep the value if it is the largest since the last push."""
        with self._lock:
            self._peaks[name] = max(value, self._peaks.get(name, 0.0))

    def has_news(self) -> bool:
        """Tell whether there is something to push."""
        return bool(self._added or self._sending)

    def is_due(self) -> bool:
        """Tell whether it is time to push."""
        return time.monotonic() - self._pushed_at >= PUSH_SECONDS

    def push(self) -> bool:
        """Send what is new (blocking); False: Redis is away, and it is kept."""
        if not self._busy.acquire(timeout=2 * TIMEOUT):
            return False
        try:
            self._pushed_at = time.monotonic()
            with contextlib.closing(for_jobs(TIMEOUT)) as client:
                self._push(client)
        except (redis.RedisError, OSError) as error:
            log.warning("push counters: %s; kept", type(error).__name__)
            return False
        finally:
            self._busy.release()
        return True

    def _push(self, client: redis.Redis) -> None:
        if self._sending and client.get(self._receipt) != str(self._number):
            self._send(client)
        with self._lock:
            self._sending, self._added = self._added, {}
            seen = {name: set(values) for name, values in self._seen.items() if values}
        self._number += 1
        self._send(client, seen)
        with self._lock:
            self._peaks.clear()
            for name, values in seen.items():
                self._seen[name] -= values

    def _send(self, client: redis.Redis, seen: Mapping[str, set[str]] | None = None) -> None:
        """Send all in one transaction; whether it arrived is known later by the number in it."""
        place = f"{PROCESSES}:{self._name}"
        pipeline = client.pipeline(transaction=True)
        for key, by in self._sending.items():
            pipeline.hincrbyfloat(COUNTERS, orjson.dumps(key).decode(), by)
        for name, values in (seen or {}).items():
            slot = _slots(name, 1)[0]
            pipeline.pfadd(slot, *values)
            pipeline.expire(slot, SLOT_SECONDS * (SLOTS + 1))
        pipeline.set(self._receipt, self._number, ex=REMEMBERED_SECONDS)
        told: dict[str, str | float] = {
            "role": self.role,
            "at": time.time(),
            **{name: level.value for name, level in self._levels.items()},
            **self._peaks,
        }
        pipeline.hset(place, mapping=told)  # type: ignore[arg-type]
        pipeline.expire(place, GONE_SECONDS)
        pipeline.sadd(PROCESSES, self._name)
        pipeline.execute()
        self._sending = {}

    @property
    def _receipt(self) -> str:
        return f"metrics:receipt:{self._name}"


deltas = Deltas()
add, add_all, see, level = deltas.add, deltas.add_all, deltas.see, deltas.level
os.register_at_fork(after_in_child=deltas.reset)


@atexit.register
def _at_exit() -> None:
    """Send what a command has counted; a process of another role has seen to it before."""
    if deltas.role == COMMAND and deltas.has_news():
        deltas.push()


_pusher: asyncio.Task[None] | None = None


def keep_pushing() -> None:
    """Push from now on while the running loop runs, unless that is so already (a web process)."""
    global _pusher
    loop = asyncio.get_running_loop()
    if _pusher is None or _pusher.get_loop() is not loop or _pusher.done():
        deltas.role = "web"
        _pusher = loop.create_task(_keep_pushing(loop))


async def stop() -> None:
    """Push what is left and stop (the end of a web process)."""
    global _pusher
    if _pusher is not None and _pusher.get_loop() is asyncio.get_running_loop():
        _pusher.cancel()
        _pusher = None
        await asyncio.to_thread(deltas.push)


async def read(*seen: str) -> Reading:
    """Return what all processes told, and how many of these they saw.

    Raises RedisError or OSError, as zeros would be a lie.
    """
    client = for_requests()
    pipeline = client.pipeline(transaction=False)
    pipeline.hgetall(COUNTERS)
    pipeline.smembers(PROCESSES)
    for name in seen:
        pipeline.pfcount(*_slots(name, SLOTS))
    counted, names, *numbers = await pipeline.execute()
    found = {tuple(orjson.loads(key)): float(value) for key, value in counted.items()}
    living = await _living(client, sorted(names))
    return Reading(found, living, dict(zip(seen, numbers, strict=True)))


def _slots(name: str, count: int) -> list[str]:
    """Return the keys of the last slots, the newest first."""
    last = int(time.time() // SLOT_SECONDS)
    return [f"metrics:seen:{name}:{last - back}" for back in range(count)]


async def _living(client: redis.asyncio.Redis, names: list[str]) -> list[dict[str, str]]:
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.hgetall(f"{PROCESSES}:{name}")
    told = await pipeline.execute()
    gone = [name for name, values in zip(names, told, strict=True) if not values]
    if gone:
        pipeline.srem(PROCESSES, *gone)
        await pipeline.execute()
    return [values for values in told if values]


async def _keep_pushing(loop: asyncio.AbstractEventLoop) -> None:
    pushing: asyncio.Future[bool] | None = None
    while True:
        before = loop.time()
        await asyncio.sleep(SAMPLE_SECONDS)
        # What comes late here has kept every other answer of this process waiting as well.
        deltas.peak(LAG, loop.time() - before - SAMPLE_SECONDS)
        if deltas.is_due() and (pushing is None or pushing.done()):
            pushing = asyncio.ensure_future(asyncio.to_thread(deltas.push))
