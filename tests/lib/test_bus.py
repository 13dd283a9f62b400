"""Hints between processes: they arrive, a gap counts as a change, and nothing ever raises."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import transaction

from lib import bus, db
from tests.lib.conftest import OwnValkey

pytestmark = pytest.mark.usefixtures("loop_ends")
ROOT = Path(__file__).resolve().parents[2]
TOPIC = "topic of a test"


@pytest.fixture
def heard() -> Iterator[list[float]]:
    """When the topic changed, as this process heard it."""
    times: list[float] = []
    bus.on(TOPIC, lambda: times.append(time.monotonic()))
    yield times
    del bus._handlers[TOPIC]


async def until(condition: Callable[[], bool], seconds: float = 4) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def listening(heard: list[float]) -> None:
    bus.listen()
    await until(lambda: bool(heard))
    heard.clear()


async def test_a_change_in_another_process_is_heard(
    own_valkey: OwnValkey, heard: list[float]
) -> None:
    await listening(heard)
    program = (
        "import asyncio, sys, django\n"
        "django.setup()\n"
        "from django.conf import settings\n"
        "settings.REDIS_URL = sys.argv[1]\n"
        "from lib import bus\n"
        f"asyncio.run(bus.achanged({TOPIC!r}))\n"
    )

    await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, own_valkey.url],
        env={"DJANGO_SETTINGS_MODULE": "proxy_project.settings"} | dict(os.environ),
        cwd=ROOT,
        check=True,
        timeout=30,
    )

    await until(lambda: len(heard) == 1)


@pytest.mark.django_db(transaction=True)
async def test_a_change_is_told_once_it_is_committed(
    own_valkey: OwnValkey, heard: list[float]
) -> None:
    await listening(heard)

    def change(fails: bool) -> int:
        with transaction.atomic():
            bus.changed(TOPIC)
            told = len(heard)
            if fails:
                transaction.set_rollback(True)
        return told

    assert await db.in_thread(change, fails=True) == 0
    assert await db.in_thread(change, fails=False) == 0

    # Here at once, and once more by the message.
    await until(lambda: len(heard) == 2)


async def test_a_topic_nobody_knows_is_nothing(own_valkey: OwnValkey, heard: list[float]) -> None:
    await listening(heard)

    await bus.achanged("another topic")
    await bus.achanged(TOPIC)

    await until(lambda: len(heard) == 2)
    assert "another topic" not in bus._handlers


async def test_a_lost_connection_is_made_again_and_all_counts_as_changed(
    own_valkey: OwnValkey, heard: list[float]
) -> None:
    await listening(heard)

    with own_valkey.client() as client:
        assert client.client_kill_filter(_type="pubsub") == 1

    await until(lambda: bool(heard))
    heard.clear()
    await bus.achanged(TOPIC)
    await until(lambda: len(heard) == 2)


async def test_a_restarted_redis_is_listened_to_again(
    own_valkey: OwnValkey, heard: list[float]
) -> None:
    await listening(heard)
    own_valkey.kill()
    await asyncio.sleep(0.1)
    own_valkey.start()

    await until(lambda: bool(heard))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_redis_that_is_away_fails_nobody(
    own_valkey: OwnValkey, heard: list[float], how: str
) -> None:
    own_valkey.kill() if how == "killed" else own_valkey.freeze()
    began = time.monotonic()
    bus.listen()

    await bus.achanged(TOPIC)

    assert len(heard) == 1
    assert time.monotonic() - began < 1
    if how == "killed":
        await db.in_thread(bus.changed, TOPIC)
        assert len(heard) == 2


def test_it_listens_in_the_loop_that_runs(own_valkey: OwnValkey, heard: list[float]) -> None:
    async def listen() -> None:
        await listening(heard)

    asyncio.run(listen())
    asyncio.run(listen())
    bus._listener = None


async def test_a_redis_that_hangs_does_not_hold_up_who_tells_of_a_change(
    own_valkey: OwnValkey,
) -> None:
    own_valkey.freeze()
    began = time.monotonic()

    await asyncio.to_thread(bus._publish, "pool")

    assert time.monotonic() - began < 1
