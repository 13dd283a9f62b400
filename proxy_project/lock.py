"""One `serve` per data folder: a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class Taken(Exception):
    """Another process holds the lock; the text names it."""


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock at `path`; raise Taken when another process does."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Append: opening must not wipe the number of the process that holds it.
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise Taken(f"another serve (pid {owner}) runs on {path.parent}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
