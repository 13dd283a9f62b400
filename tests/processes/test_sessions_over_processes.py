"""A session revoked by the command line ends in every web process, whatever Redis went through."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import redis

from proxy_project import valkey
from tests.relay.raw import RawClient
from tests.support.product import Product
from tests.support.simulator import Simulator

ASK = {
    "model": "claude-opus-5-5",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "hello"}],
}
WANTED = {"id", "key", "client", "session", "account", "started_at", "last_seen_at", "in_flight"}


@pytest.fixture
def product(tmp_path: Path, simulator_process: Simulator) -> Iterator[Product]:
    simulator_process.reset()
    running = Product(tmp_path, simulator_process)
    yield running
    running.end()


def _headers(key: str, session: str) -> dict[str, str]:
    agent = "claude-cli/2.1.328 (external, sdk-cli)"
    return {"x-api-key": key, "user-agent": agent, "x-claude-code-session-id": session}


async def _ask_many(product: Product, key: str, session: str) -> set[int]:
    """Ask on connections of their own, so that both processes are asked."""

    async def one() -> int:
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
            answer = await client.post(
                product.url + "/v1/messages", json=ASK, headers=_headers(key, session)
            )
            return answer.status_code

    return set(await asyncio.gather(*(one() for _ in range(12))))


async def _stream(product: Product, key: str, session: str) -> RawClient:
    body = json.dumps(ASK | {"stream": True}).encode()
    headers = _headers(key, session)
    client = await RawClient.post(product.url, "/v1/messages", headers, body)
    assert " 200 " in await client.head()
    await client.chunk()
    return client


async def _cut_at(client: RawClient) -> float:
    try:
        while await client.chunk():
            pass
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return time.monotonic()
    raise AssertionError("it ended as if it was whole")


async def _listed(product: Product, streams: int) -> list[dict[str, Any]]:
    """Return the sessions once all of these streams are told of."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        rows: list[dict[str, Any]] = await asyncio.to_thread(product.manage, "session", "list")
        if sum(row["streams"] for row in rows) == streams:
            return rows
        await asyncio.sleep(0.5)
    raise AssertionError(rows)


@pytest.mark.slow
async def test_a_session_is_listed_cut_and_refused_in_all_processes(product: Product) -> None:
    product.link("ada@example.com")
    key = product.key()
    product.simulator.script(times=None, events=6000, pace=0.05)
    doomed = [await _stream(product, key, "a") for _ in range(6)]
    other, third = await _stream(product, key, "b"), await _stream(product, key, "c")

    product.simulator.clear_scripts()

    rows = {row["session"]: row for row in await _listed(product, streams=8)}
    assert all(row.keys() >= WANTED for row in rows.values())
    assert {name: row["streams"] for name, row in rows.items()} == {"a": 6, "b": 1, "c": 1}

    reading = [asyncio.create_task(_cut_at(client)) for client in doomed]
    await asyncio.to_thread(product.manage, "session", "revoke", rows["a"]["id"])
    revoked_at = time.monotonic()
    assert max(await asyncio.gather(*reading)) - revoked_at < 1
    assert await _ask_many(product, key, "a") == {403}

    # Redis is killed and comes back; then it forgets everything.
    product.serve.children()["valkey"].kill()
    product.serve.hears("valkey .* ended with signal 9; starting it again")
    await asyncio.sleep(3)
    reading = [asyncio.create_task(_cut_at(other))]
    await asyncio.to_thread(product.manage, "session", "revoke", "b")
    revoked_at = time.monotonic()
    assert max(await asyncio.gather(*reading)) - revoked_at < 1
    socket = valkey.socket_path(product.folder / "data")
    with redis.Redis(unix_socket_path=str(socket)) as client:
        client.flushall()
    assert await _ask_many(product, key, "a") == {403}

    # So do the web processes.
    third.hang_up()
    for process in psutil.Process(product.serve.process.pid).children():
        if "proxy_project.web" in process.cmdline():
            process.kill()
    await asyncio.sleep(3)
    assert await _ask_many(product, key, "b") == {403}
    assert await _ask_many(product, key, "d") == {200}

    await asyncio.to_thread(product.manage, "key", "revoke", "test")
    assert await _ask_many(product, key, "d") == {401}
    ended = {row["ended"] for row in product.manage("session", "list", "--all")}
    assert ended <= {"revoked"}
