"""The whole product with two web processes while its Redis is killed and comes back empty."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from sessions_limit import limiter, presence
from tests.lib.conftest import OwnValkey, own_valkey
from tests.relay.raw import RawClient
from tests.support.product import Product
from tests.support.simulator import Simulator

__all__ = ["own_valkey"]


@pytest.fixture
def product(
    tmp_path: Path,
    simulator_process: Simulator,
    own_valkey: OwnValkey,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Product]:
    simulator_process.reset()
    monkeypatch.setenv("SESSION_LIMIT", "on")
    running = Product(tmp_path, simulator_process, redis=own_valkey.url)
    yield running
    running.end()


async def _begin(product: Product, key: str, session: str, *, stream: bool = False) -> RawClient:
    """Ask on a connection of its own, so that both processes are asked."""
    agent = "claude-cli/2.1.328 (external, sdk-cli)"
    headers = {"x-api-key": key, "user-agent": agent, "x-claude-code-session-id": session}
    headers["x-app"] = "slow" if stream else "cli"
    body = {
        "model": "claude-opus-5-5",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": stream,
    }
    return await RawClient.post(product.url, "/v1/messages", headers, json.dumps(body).encode())


async def _ask(product: Product, key: str, session: str) -> str:
    client = await _begin(product, key, session)
    head = await client.head()
    client.hang_up()
    code = [line for line in head.split("\r\n") if line.startswith("x-relay-error: ")]
    return code[0].removeprefix("x-relay-error: ") if code else head.split(" ")[1]


async def _ask_all(product: Product, key: str, *sessions: str) -> Counter[str]:
    return Counter(await asyncio.gather(*(_ask(product, key, session) for session in sessions)))


def _events(product: Product, kind: str) -> int:
    query = f"SELECT count(*) FROM events_event WHERE kind = '{kind}'"
    if url := product.settings.get("DATABASE_URL"):
        with psycopg.connect(url) as connection:
            row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0
    (file,) = (product.folder / "data").glob("*.sqlite3")
    connection = sqlite3.connect(file)
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


async def _becomes(true: Callable[[], bool], within: float) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within
        await asyncio.sleep(0.1)
    return time.monotonic() - began


def _open(own_valkey: OwnValkey) -> set[str]:
    with own_valkey.client() as client:
        return {name.rpartition("/")[2] for name in client.zrange(limiter.ALL, 0, -1)}


def _streams(own_valkey: OwnValkey) -> int:
    with own_valkey.client() as client:
        places = [f"{presence.PROCESSES}:{name}" for name in client.smembers(presence.PROCESSES)]
        told = [value for place in places for value in client.hgetall(place).values() if value]
    return sum(int(value.split()[1]) for value in told)


@pytest.mark.slow
async def test_two_processes_share_the_limit_and_agree_again_afterwards(
    product: Product, own_valkey: OwnValkey
) -> None:
    product.link("ada@example.com")
    key = product.key()
    product.simulator.script({"header": {"x-app": "slow"}}, times=None, events=900, pace=0.1)
    streams = [await _begin(product, key, session, stream=True) for session in ("s1", "s2")]
    for stream in streams:
        assert " 200 " in await stream.head()
    # Both have heard of each other.
    await asyncio.sleep(presence.PERIOD)

    own_valkey.kill_and_forget()
    found = await _ask_all(product, key, *(f"new-{number}" for number in range(24)))
    # Each may have two of the three, and two are streams already.
    assert found["200"] <= 2
    assert found["200"] + found["session_limit"] == 24
    # Whichever of them is asked has heard of both.
    assert await _ask_all(product, key, *("s1", "s2") * 6) == {"200": 12}
    await _becomes(lambda: _events(product, "limiter.degraded") == 1, 20)

    own_valkey.start()
    await _becomes(lambda: {"s1", "s2"} <= _open(own_valkey), presence.PERIOD + 5)
    await asyncio.sleep(presence.PERIOD)
    assert len(_open(own_valkey)) == 2 + found["200"]
    if found["200"]:
        assert await _ask_all(product, key, "more", "and more") == {"session_limit": 2}
    await _becomes(lambda: _events(product, "limiter.restored") == 1, 20)
    assert _events(product, "limiter.degraded") == 1

    for process in psutil.Process(product.serve.process.pid).children():
        if "proxy_project.web" in process.cmdline():
            process.kill()
    # What a killed process had under way is nobody's any more.
    await _becomes(lambda: not _streams(own_valkey), presence.GONE + 1)
    assert _events(product, "limiter.restored") == 1
