"""Run ORM calls of the data plane in a small executor of their own, off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import close_old_connections, connections

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 4

_executor: ThreadPoolExecutor | None = None


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `call(...)` run in a database thread; its connection is checked before and after.

    Never Django's one thread-sensitive thread: a slow console page must not hold up a request.
    """
    global _executor
    if _executor is None:
        _executor = ThreadPoolExecutor(THREADS, thread_name_prefix="relay-db")

    def run() -> T:
        close_old_connections()
        try:
            return call(*args, **kwargs)
        finally:
            close_old_connections()

    return await asyncio.get_running_loop().run_in_executor(_executor, run)


def reset() -> None:
    """End the executor's threads, and their connections with them (for tests)."""
    global _executor
    if _executor is None:
        return
    meeting = threading.Barrier(THREADS)

    def close_all() -> None:
        meeting.wait()
        connections.close_all()

    # Each thread has a connection of its own, and none takes two of these while all must meet.
    for _ in range(THREADS):
        _executor.submit(close_all)
    _executor.shutdown()
    _executor = None
