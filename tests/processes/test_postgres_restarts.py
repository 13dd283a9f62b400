"""A PostgreSQL that crashes and comes back breaks no stream and loses no record and no token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from tests.support.postgres import Server
from tests.support.product import Product
from tests.support.simulator import Simulator

HEADERS = {"user-agent": "claude-cli/2.1.328 (external, sdk-cli)"}
ADA = "ada@example.com"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.end()


@pytest.fixture
def product(tmp_path: Path, simulator_process: Simulator, server: Server) -> Iterator[Product]:
    simulator_process.reset()
    running = Product(tmp_path, simulator_process, postgres=server.url)
    yield running
    running.end()


async def _ask(client: httpx2.AsyncClient, *, stream: bool) -> tuple[int, str, float]:
    body: dict[str, Any] = {
        "model": "claude-opus-5-5",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": stream,
    }
    began = time.monotonic()
    answer = await client.post("/v1/messages", json=body)
    return answer.status_code, answer.text, time.monotonic() - began


@pytest.mark.slow
async def test_streams_and_requests_go_on_and_every_record_arrives(
    product: Product, server: Server
) -> None:
    product.link(ADA)
    headers = HEADERS | {"x-api-key": product.key()}
    simulator = product.simulator
    simulator.script({"header": {"x-app": "slow"}}, times=None, events=60, pace=0.1)

    async with httpx2.AsyncClient(
        base_url=product.url, headers=headers, trust_env=False, timeout=30
    ) as client:
        await _ask(client, stream=False)
        client.headers["x-app"] = "slow"
        streams = [asyncio.create_task(_ask(client, stream=True)) for _ in range(10)]
        await asyncio.sleep(1)
        client.headers["x-app"] = "cli"
        crashing = asyncio.create_task(asyncio.to_thread(server.crash))
        answers = []
        while not crashing.done() or len(answers) < 40:
            answers.append(await _ask(client, stream=False))
            await asyncio.sleep(0.05)
        await crashing
        simulator.expire_access(ADA)
        answers.append(await _ask(client, stream=False))
        texts = [text for _, text, _ in await asyncio.gather(*streams)]

    assert all(text.count("message_stop") == 2 for text in texts)
    assert {status for status, _, _ in answers} == {200}
    assert max(took for _, _, took in answers) < 3
    assert simulator.token_ledger()["refreshes"] == 1
    assert product.account("ada")["status"] == "active"
    asked = [r for r in simulator.requests(path="/v1/messages") if r["status"] == 200]
    assert _records(product, len(asked)) == len(asked)


def _records(product: Product, wanted: int) -> int:
    """Return how many records the database has once they are as many as wanted, or after 60 s."""
    count, end = -1, time.monotonic() + 60
    while count != wanted and time.monotonic() < end:
        with psycopg.connect(product.settings["DATABASE_URL"]) as connection:
            row = connection.execute("SELECT count(*) FROM usage_requestrecord").fetchone()
        count = row[0] if row else -1
        time.sleep(0.5)
    return count
