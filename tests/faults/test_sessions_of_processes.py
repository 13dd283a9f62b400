"""What one process has under way counts in the others, until it ends or is killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from sessions_limit import alone, presence, sessions, visits
from sessions_limit.errors import Busy
from sessions_limit.identity import Client
from sessions_limit.keys import Key
from sessions_limit.visits import Visit
from tests.lib.conftest import OwnValkey
from tests.support import visitor
from tests.support.serving import ROOT

pytestmark = pytest.mark.usefixtures("loop_ends")

KEY, CLIENT = Key(7, "key", None, max_in_flight=5), Client("key:7", "", "")


@pytest.fixture
def others(own_valkey: OwnValkey) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that have three requests of the key, and two of them, under way."""
    command = [sys.executable, "-m", "tests.support.visitor"]
    env = os.environ | {"REDIS_URL": own_valkey.url, "LOG_LEVEL": "ERROR"}
    running = [
        subprocess.Popen(
            [*command, str(number)],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (3, 2)
    ]
    assert [process.stdout and process.stdout.readline() for process in running] == ["ready\n"] * 2
    yield running
    for process in running:
        process.kill()
        process.communicate()
    sessions.reset()
    visits.reset()
    presence.reset()
    alone.state.processes = 1


async def hears(in_flight: int, within: float) -> float:
    """Wait until this process counts so many requests elsewhere, and return for how long."""
    began = time.monotonic()
    async with asyncio.timeout(within):
        while visits.of_key(KEY.id) != in_flight:
            await asyncio.sleep(0.01)
    assert {name: seen.in_flight for name, seen in presence.read().items()} == (
        {"key:7/held": in_flight} if in_flight else {}
    )
    return time.monotonic() - began


async def test_it_counts_until_it_is_killed_or_stopped(
    others: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "PERIOD", visitor.PERIOD)
    monkeypatch.setattr(presence, "LOOK", visitor.LOOK)
    presence.keep_beating()

    await hears(5, within=3)
    assert alone.state.processes == 3
    with pytest.raises(Busy):
        Visit(KEY, CLIENT).begin()

    killed, stopped = others
    killed.kill()
    await hears(2, within=visitor.GONE + 3)
    Visit(KEY, CLIENT).begin()
    visits.here.clear()
    stopped.communicate()
    assert await hears(0, within=3) < visitor.GONE
    await presence.stop()
