"""A web process's door in a process of its own: opens sessions when it is told, and says what came.

Reads a wish per line, writes an answer per line; see Door.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
GROUP = (1, 2, 3)


class Door:
    """Drives such a process."""

    def __init__(self, **settings: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.door"],
            cwd=ROOT,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "proxy_project.settings"} | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, key: int, sessions: Sequence[str], at: float) -> None:
        """Let it open these sessions of a key, all at once and at that time (epoch seconds)."""
        assert self._process.stdin is not None
        print(json.dumps([key, sessions, at]), file=self._process.stdin, flush=True)

    def answers(self) -> list[Any]:
        """Return what came, in their order: the life and the account of each, or the refusal."""
        assert self._process.stdout is not None
        found: list[Any] = json.loads(self._process.stdout.readline())
        return found

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


async def _open(key: int, sessions: Sequence[str], at: float) -> list[Any]:
    while time.time() < at:
        await asyncio.sleep(0)
    return await asyncio.gather(*(_visit(key, session) for session in sessions))


async def _visit(number: int, session: str) -> Any:
    from sessions_limit import sticky
    from sessions_limit.errors import Refused
    from sessions_limit.identity import client_of
    from sessions_limit.keys import Key
    from sessions_limit.limiter import Claim
    from sessions_limit.visits import Visit

    async def claim() -> Claim:
        return sticky.claim(number, session, GROUP, GROUP)

    visit = Visit(Key(number, "key", None), client_of("key", number, "203.0.113.5", ""))
    try:
        visit.begin()
        await visit.join(session, claim=claim)
    except Refused as refused:
        return type(refused).__name__
    finally:
        lease = visit.lease
        visit.end()
    assert lease is not None
    return [lease.uid, sticky.seen(number, session)]


async def _serve() -> None:
    from lib import redis as clients

    # A busy test machine is not a Redis that is away.
    clients.REQUEST_TIMEOUT = 5.0
    await clients.for_requests().ping()
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await _open(*json.loads(line))), flush=True)
    await clients.close()


if __name__ == "__main__":
    import django

    django.setup()
    asyncio.run(_serve())
