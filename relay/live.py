"""The requests that run in this process, by key: when a key is revoked, they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from django.db import Error as DatabaseError

from lib import bus
from sessions_limit import keys

End = asyncio.Future[None]
log = logging.getLogger(__name__)

_running: dict[int, set[End]] = {}
_checks: set[asyncio.Task[None]] = set()


@contextlib.contextmanager
def watched(key: int) -> Iterator[End]:
    """Yield what is done as soon as the key is revoked."""
    end: End = asyncio.get_running_loop().create_future()
    _running.setdefault(key, set()).add(end)
    try:
        yield end
    finally:
        _running[key].discard(end)
        if not _running[key]:
            del _running[key]
        end.cancel()


def check() -> None:
    """Look in the background whether the keys of what runs here still open the relay.

    Called when a key has changed, and now and then by what runs, as such a hint may be lost.
    """
    if _running and not _checks:
        task = asyncio.get_running_loop().create_task(_end_revoked())
        _checks.add(task)
        task.add_done_callback(_checks.discard)


async def _end_revoked() -> None:
    # What begins meanwhile was let in by a newer look than this one.
    asked = set(_running)
    try:
        still_open = await keys.still_open(asked)
    except DatabaseError as error:
        log.warning("check the keys of running requests: %s", type(error).__name__)
        return
    for key in asked - still_open:
        for end in _running.get(key, ()):
            if not end.done():
                end.set_result(None)


def _on_change() -> None:
    """Hear of a change in whatever thread it is told."""
    for loop in {end.get_loop() for ends in list(_running.values()) for end in list(ends)}:
        _call_soon(loop)


def _call_soon(loop: Any) -> None:
    # A loop that has just closed has nothing running any more.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(check)


bus.on(keys.KEYS, _on_change)
