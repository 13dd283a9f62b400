"""Time in the test's hand: the product and the simulator live in it, and the jobs keep their beat.

The clocks stand still and jump from one moment to the next: to the test's own doings, to the beat
after each limit's end, and every STEP to all jobs. Only calendar time is virtual. Monotonic time
(time-outs, the age of snapshots) and the expiry of Redis keys (bindings of sessions) stay real, so
what they decide is not for a test that uses this.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import time_machine
from asgiref.sync import sync_to_async
from django.db import connections
from django.utils import timezone
from django.utils.module_loading import import_string

from accounts import facts, polling, pool
from accounts.models import Account
from accounts.states import Status
from proxy_project.celery import DAY, SCHEDULE
from relay import effects
from tests.conftest import RunningRelay
from tests.support.simulator import Simulator
from usage import recorder

BEAT, STEP = timedelta(seconds=30), timedelta(hours=1)
POLLS = "accounts.tasks.poll_usage"
# What moves accounts and tells of it; all other jobs (models, tidying, reports) run once a day.
PUNCTUAL = frozenset(
    {
        POLLS,
        "usage.tasks.drain_usage",
        "accounts.tasks.drain_facts",
        "accounts.tasks.refresh_tokens",
        "accounts.tasks.recover_rate_limited",
        "accounts.tasks.deactivate_idle",
        "accounts.tasks.check_profiles",
        "accounts.tasks.announce_grant_ends",
        "accounts.tasks.watch_pool",
        "events.tasks.deliver_alerts",
    }
)

Act = Callable[[], Awaitable[Any]]
Story = Sequence[tuple[datetime, Act]]


class VirtualTime:
    """Lets days pass; with `beats` > 1 every job runs so many times at once, each time."""

    def __init__(
        self,
        traveller: time_machine.Traveller,
        simulator: Simulator,
        running: RunningRelay,
        beats: int = 1,
    ) -> None:
        self._traveller = traveller
        self._simulator = simulator
        self._running = running
        self._beats = beats
        self._workers = ThreadPoolExecutor(beats, thread_name_prefix="beat")
        self._last: dict[str, datetime] = {}

    async def pass_until(self, end: datetime, story: Story) -> None:
        """Let time pass; whatever happens at a moment happens before the jobs of that moment."""
        acts = sorted(story, key=lambda act: act[0])
        while (now := timezone.now()) <= end:
            while acts and acts[0][0] <= now:
                await acts.pop(0)[1]()
                await self._settled()
            if now.timestamp() % BEAT.total_seconds() == 0:
                await self._tick(now)
            following = [now - (now - datetime.min.replace(tzinfo=UTC)) % STEP + STEP]
            following += [at for at, _ in acts[:1]]
            following += await sync_to_async(_beats_after_limits)(now)
            self.move_to(min(following))

    def move_to(self, moment: datetime) -> None:
        """Set all clocks; what the relay knows of the pool is old by then."""
        self._traveller.move_to(moment)
        self._simulator.clock(moment)
        pool.snapshot.invalidate()

    def close(self) -> None:
        """End the threads of the beats, and their connections with them."""
        together = threading.Barrier(self._beats)

        def leave() -> None:
            together.wait()
            connections.close_all()

        for _ in range(self._beats):
            self._workers.submit(leave)
        self._workers.shutdown()

    async def _settled(self) -> None:
        """Wait until what requests have begun is in the database or on its way to a job."""
        await self._running.idle()
        await effects.settled()
        await facts.facts.flushed()
        await recorder.appender.flushed()

    async def _tick(self, now: datetime) -> None:
        """Run the jobs that are due, each in all beats at the same time."""
        assert SCHEDULE.keys() >= PUNCTUAL
        due = [name for name, period in SCHEDULE.items() if self._is_due(name, period, now)]
        self._last |= dict.fromkeys(due, now)
        together = threading.Barrier(self._beats)

        def beat() -> None:
            for name in due:
                together.wait(60)
                _run(name)

        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(loop.run_in_executor(self._workers, beat) for _ in range(self._beats))
        )

    def _is_due(self, name: str, period: float, now: datetime) -> bool:
        last, every = self._last.get(name), period if name in PUNCTUAL else DAY
        return last is None or now - last >= timedelta(seconds=every)


@contextmanager
def travelling(
    start: datetime, simulator: Simulator, running: RunningRelay, beats: int = 1
) -> Iterator[VirtualTime]:
    """Let the test live from `start` on."""
    with time_machine.travel(start, tick=False) as traveller:
        time = VirtualTime(traveller, simulator, running, beats)
        time.move_to(start)
        try:
            yield time
        finally:
            time.close()
            simulator.clock(None)


def _run(name: str) -> None:
    job = import_string(name)
    job()
    # Each minute only some accounts are asked; a step stands for many minutes.
    while name == POLLS and polling._due(timezone.now()):
        job()


def _beats_after_limits(now: datetime) -> list[datetime]:
    """Return the first beat after each limit's end."""
    rows = Account.objects.filter(status=Status.RATE_LIMITED, limited_until__isnull=False)
    ends = [until for until in rows.values_list("limited_until", flat=True) if until]
    beats = [end + timedelta(seconds=-end.timestamp() % BEAT.total_seconds()) for end in ends]
    return [beat for beat in beats if beat > now]
