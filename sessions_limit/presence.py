"""The heartbeat of a web process: its sessions live on, and every process knows what all have."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import redis
from django.db import Error as DatabaseError
from django.utils import timezone

from events import conditions
from lib import db
from lib.redis import for_jobs, for_requests
from sessions_limit import sessions, visits
from sessions_limit.errors import Revoked

PERIOD, GONE = 10.0, 30
PROCESSES = "presence"
# What a process tells: that it lives, and what keys and clients, and sessions, have under way.
ALIVE, CLIENT, SESSION = "alive", "c ", "s "
DEGRADED, RESTORED, SUBJECT = "limiter.degraded", "limiter.restored", "relay"
PATIENCE = 1.0
log = logging.getLogger(__name__)

_beating: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Seen:
    """What one session has under way, in all processes: requests, and those that are streams."""

    in_flight: int
    streams: int


def keep_beating() -> None:
    """Beat from now on in the running loop, unless that is so already."""
    loop = asyncio.get_running_loop()
    if loop not in _beating or _beating[loop].done():
        _beating[loop] = loop.create_task(_keep_beating())


async def stop() -> None:
    """Stop beating, and tell a last time what is left: nothing runs here any more."""
    task = _beating.pop(asyncio.get_running_loop(), None)
    if task is None:
        return
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for lease in sessions.leases.values():
        _report(lease)
    with contextlib.suppress(redis.RedisError, OSError):
        pipeline = for_requests().pipeline(transaction=False)
        pipeline.delete(_place(sessions.PROCESS))
        pipeline.zrem(PROCESSES, sessions.PROCESS)
        await pipeline.execute()


async def beat() -> None:
    """Renew what lives here, tell what is under way, and hear it of the others."""
    leases = list(sessions.leases.values())
    for lease in leases:
        _report(lease)
    await asyncio.gather(*(_renew(lease) for lease in leases))
    sessions.forget_ended()
    with contextlib.suppress(redis.RedisError, OSError):
        _hear(await _tell())
    await _journal()


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
        found[name] = Seen(before.in_flight + counts[0], before.streams + counts[1])
    return found


async def _keep_beating() -> None:
    while True:
        await asyncio.sleep(PERIOD)
        try:
            await beat()
        except Exception:
            # Whatever it was, the next one must come.
            log.exception("beat")


async def _renew(lease: sessions.Lease) -> None:
    # Its requests are ended by whoever looks after what runs (relay/live.py).
    with contextlib.suppress(Revoked):
        await sessions.renew(lease)


def _report(lease: sessions.Lease) -> None:
    if lease.in_flight or lease.requests != lease.reported:
        sessions.report(lease)


async def _tell() -> list[dict[str, str]]:
    """Tell the others what is under way here, and return what they told."""
    ours = sessions.PROCESS
    told: dict[str, str] = {ALIVE: ""}
    told |= {CLIENT + name: f"{count} 0" for name, count in visits.here.items()}
    for lease in sessions.leases.values():
        if lease.in_flight:
            told[SESSION + lease.name] = f"{lease.in_flight} {lease.streams}"
    pipeline = for_requests().pipeline(transaction=True)
    pipeline.delete(_place(ours))
    pipeline.hset(_place(ours), mapping=told)  # type: ignore[arg-type]
    pipeline.expire(_place(ours), GONE)
    pipeline.sadd(PROCESSES, ours)
    pipeline.expire(PROCESSES, GONE)
    pipeline.smembers(PROCESSES)
    names = [name for name in (await pipeline.execute())[-1] if name != ours]
    pipeline = for_requests().pipeline(transaction=False)
    for name in names:
        pipeline.hgetall(_place(name))
    found = await pipeline.execute()
    if gone := [name for name, told in zip(names, found, strict=True) if not told]:
        await for_requests().srem(PROCESSES, *gone)
    return [told for told in found if told]


def _hear(told: list[dict[str, str]]) -> None:
    sessions.share.processes = 1 + len(told)
    visits.elsewhere.clear()
    for process in told:
        for kind in (CLIENT, SESSION):
            visits.elsewhere.update({name: n for name, (n, _) in _read(process, kind)})


def _read(told: dict[str, str], kind: str) -> Iterator[tuple[str, tuple[int, int]]]:
    for field, value in told.items():
        if field.startswith(kind):
            in_flight, streams = value.split()
            yield field.removeprefix(kind), (int(in_flight), int(streams))


async def _journal() -> None:
    """Say once that this process decides alone, and once that it does no more."""
    share = sessions.share
    if share.was_alone:
        with contextlib.suppress(DatabaseError):
            await db.in_thread(_note_degraded, share.is_alone)
            share.was_alone = share.is_alone


def _note_degraded(is_alone: bool) -> None:
    conditions.begin(DEGRADED, SUBJECT, now=timezone.now())
    if not is_alone:
        conditions.end(DEGRADED, SUBJECT, event=RESTORED)


def _place(process: str) -> str:
    return f"{PROCESSES}:{process}"
