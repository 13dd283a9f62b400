"""The heartbeat of a web process: its sessions live on, and every process knows what all have."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import redis
from django.conf import settings

from lib.batch import LARGEST
from lib.redis import for_jobs, for_requests, heed_cancellation
from sessions_limit import alone, sessions, sticky, visits
from sessions_limit.errors import Revoked

# Lives are renewed once in a period and counts told twice: whoever hears of them then knows them
# within one. A process that is silent for GONE seconds has nothing under way any more.
PERIOD, GONE, LOOK = 10.0, 30, 1.0
# Sessions that were used in so many periods are told of, so that whoever misses one knows them too.
RECENT = 1.5
PROCESSES = "presence"
# What a process tells: that it lives, and what keys and clients, and sessions, have under way.
ALIVE, CLIENT, SESSION = "alive", "c ", "s "
PATIENCE = 1.0
Told = dict[str, str]
log = logging.getLogger(__name__)

_beating: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Seen:
    """What one session has under way, in all processes: requests, and those that are streams."""

    in_flight: int
    streams: int


@dataclass(frozen=True, slots=True)
class _Counts:
    """What one process told of a client or a session: since when that is open, if it is one."""

    in_flight: int
    streams: int
    since: float | None


@dataclass(frozen=True, slots=True)
class _Other:
    """What another process told, and until when (monotonic clock) that holds."""

    told: Told
    until: float


@dataclass(slots=True)
class _Memory:
    """The other processes by name, and whether Redis ought to know of this one."""

    others: dict[str, _Other] = field(default_factory=dict)
    is_told: bool = False


_memory = _Memory()


def keep_beating() -> None:
    """Beat from now on in the running loop, unless that is so already."""
    loop = asyncio.get_running_loop()
    if loop not in _beating or _beating[loop].done():
        _beating[loop] = loop.create_task(_keep_beating())


async def stop() -> None:
    """Stop beating, and tell a last time what is left: nothing runs here any more."""
    await alone.settled()
    task = _beating.pop(asyncio.get_running_loop(), None)
    if task is None:
        return
    while not task.done():
        # Once may not do: before Python 3.12 the client's wait_for swallows what comes as it ends.
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)
    for lease in sessions.leases.values():
        _report(lease)
    with contextlib.suppress(redis.RedisError, OSError):
        pipeline = for_requests().pipeline(transaction=False)
        pipeline.delete(_place(sessions.PROCESS))
        pipeline.srem(PROCESSES, sessions.PROCESS)
        await pipeline.execute()
    reset()


async def beat() -> None:
    """Renew what lives here, and exchange with the others what is under way."""
    await sessions.withdraw()
    leases = list(sessions.leases.values())
    for lease in leases:
        _report(lease)
    await _renew(leases)
    sessions.forget_ended()
    sticky.forget_ended()
    await exchange()


async def exchange() -> None:
    """Tell what is under way here, and hear it of the others.

    A Redis that was emptied is told of all that is open here: its slots are taken.
    """
    try:
        names, was_forgotten = await _tell()
        if was_forgotten:
            await _renew(list(sessions.leases.values()), anyway=True)
        found = await _hear(names)
    except (redis.RedisError, OSError) as error:
        alone.failed(error)
        return
    # Who was forgotten as well may not have told it again yet.
    _memory.others = (_memory.others if was_forgotten else {}) | found
    told = [told for other in found.values() for told in _read(other.told, SESSION)]
    since = {name: counts.since for name, counts in told if counts.since is not None}
    alone.hear(1 + len(_memory.others), since)
    _count()


def reset() -> None:
    """Forget what the others told, and that they were told anything."""
    _memory.others.clear()
    _memory.is_told = False


def read() -> dict[str, Seen]:
    """Return what each session has under way, blocking; nothing while Redis is away."""
    found: dict[str, Seen] = {}
    try:
        with contextlib.closing(for_jobs(PATIENCE)) as client:
            names: Any = client.smembers(PROCESSES)
            pipeline = client.pipeline(transaction=False)
            for name in names:
                pipeline.hgetall(_place(name))
            told = pipeline.execute()
    except (redis.RedisError, OSError):
        return found
    for name, counts in (item for process in told for item in _read(process, SESSION)):
        before = found.get(name, Seen(0, 0))
        if counts.in_flight:
            found[name] = Seen(before.in_flight + counts.in_flight, before.streams + counts.streams)
    return found


async def _keep_beating() -> None:
    beaten, exchanged = time.monotonic(), float("-inf")
    while True:
        # Sessions that are idle soon need to be renewed sooner.
        period = min(PERIOD, settings.CONFIG.session_idle_seconds / 3)
        await asyncio.sleep(min(LOOK, period / 2))
        try:
            is_back = await alone.look()
            alone.tell()
            if is_back or time.monotonic() - beaten >= period:
                beaten = exchanged = time.monotonic()
                await beat()
            elif time.monotonic() - exchanged >= period / 2:
                exchanged = time.monotonic()
                await exchange()
            _forget_silent()
        except Exception:
            # Whatever it was, the next one must come.
            log.exception("beat")
        heed_cancellation()


async def _renew(leases: Collection[sessions.Lease], *, anyway: bool = False) -> None:
    due = [lease for lease in leases if sessions.is_due(lease, anyway=anyway)]
    # As many at a time as go in one round trip: nobody else shall wait for all of them.
    for first in range(0, len(due), LARGEST):
        some = due[first : first + LARGEST]
        await asyncio.gather(*(_renew_one(lease, anyway) for lease in some))


async def _renew_one(lease: sessions.Lease, anyway: bool) -> None:
    # Its requests are ended by whoever looks after what runs (relay/live.py).
    with contextlib.suppress(Revoked):
        await sessions.renew(lease, anyway=anyway)


def _report(lease: sessions.Lease) -> None:
    if lease.in_flight or lease.requests != lease.reported:
        sessions.report(lease)


async def _tell() -> tuple[list[str], bool]:
    """Return who the others are, and whether Redis has forgotten what this process had told."""
    ours = sessions.PROCESS
    told: Told = {ALIVE: ""}
    told |= {CLIENT + name: f"{count} 0" for name, count in visits.here.items()}
    told |= {SESSION + lease.name: _told_of(lease) for lease in _recent()}
    pipeline = for_requests().pipeline(transaction=True)
    pipeline.delete(_place(ours))
    pipeline.hset(_place(ours), mapping=told)  # type: ignore[arg-type]
    pipeline.expire(_place(ours), GONE)
    pipeline.sadd(PROCESSES, ours)
    pipeline.expire(PROCESSES, GONE)
    pipeline.smembers(PROCESSES)
    was_there, *_, names = await pipeline.execute()
    was_forgotten, _memory.is_told = _memory.is_told and not was_there, True
    return [name for name in names if name != ours], was_forgotten


def _recent() -> Iterator[sessions.Lease]:
    now = time.monotonic()
    for lease in sessions.leases.values():
        if lease.in_flight or (lease.used_at > now - RECENT * PERIOD and lease.lives(now)):
            yield lease


def _told_of(lease: sessions.Lease) -> str:
    counts = f"{lease.in_flight} {lease.streams}"
    # Whoever cannot ask Redis takes it for open then.
    return f"{counts} {lease.since:.6f}" if lease.lives(time.monotonic()) else counts


async def _hear(names: list[str]) -> dict[str, _Other]:
    now = time.monotonic()
    pipeline = for_requests().pipeline(transaction=False)
    for name in names:
        pipeline.hgetall(_place(name))
        pipeline.pttl(_place(name))
    answers = await pipeline.execute()
    found = {
        name: _Other(told, now + left / 1000)
        for name, told, left in zip(names, answers[::2], answers[1::2], strict=True)
        if told
    }
    if gone := [name for name in names if name not in found]:
        await for_requests().srem(PROCESSES, *gone)
    return found


def _forget_silent() -> None:
    """Forget what others told too long ago; how many they were is known no better meanwhile."""
    now = time.monotonic()
    if silent := [name for name, other in _memory.others.items() if other.until <= now]:
        for name in silent:
            del _memory.others[name]
        _count()


def _count() -> None:
    visits.elsewhere.clear()
    for other in _memory.others.values():
        for kind in (CLIENT, SESSION):
            told = _read(other.told, kind)
            visits.elsewhere.update({name: n.in_flight for name, n in told if n.in_flight})


def _read(told: Told, kind: str) -> Iterator[tuple[str, _Counts]]:
    for name, value in told.items():
        if name.startswith(kind):
            in_flight, streams, *since = value.split()
            counts = _Counts(int(in_flight), int(streams), float(since[0]) if since else None)
            yield name.removeprefix(kind), counts


def _place(process: str) -> str:
    return f"{PROCESSES}:{process}"
