"""A web process of its own, as others see it: it has requests under way until its input ends.

`python -m tests.support.visitor NUMBER`: requests of key 7, session "held", by a short heartbeat.
"""

from __future__ import annotations

import asyncio
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proxy_project.settings")

import django

django.setup()

from sessions_limit import presence  # noqa: E402
from sessions_limit.identity import Client  # noqa: E402
from sessions_limit.keys import Key  # noqa: E402
from sessions_limit.visits import Visit  # noqa: E402

PERIOD, GONE, LOOK = 0.4, 2, 0.1


async def main(number: int) -> None:
    """Begin, and say so by a line."""
    presence.PERIOD, presence.GONE, presence.LOOK = PERIOD, GONE, LOOK
    for _ in range(number):
        visit = Visit(Key(7, "key", None), Client("key:7", "", ""))
        visit.begin()
        await visit.join("held", opens=False)
    presence.keep_beating()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await presence.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
