"""Several web processes on one pool: one refresh, and no token lost when one of them is killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.support.product import Product
from tests.support.simulator import Simulator

ASK = {
    "model": "claude-opus-5-5",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "hello"}],
}
ADA = "ada@example.com"


@pytest.fixture
def product(tmp_path: Path, simulator_process: Simulator) -> Iterator[Product]:
    simulator_process.reset()
    running = Product(tmp_path, simulator_process)
    yield running
    running.end()


async def _ask_many(product: Product, key: str, times: int) -> list[int]:
    """Ask on a connection each, so that both processes are asked; 0 stands for no answer."""

    async def one() -> int:
        headers = {"x-api-key": key, "user-agent": "claude-cli/2.1.328 (external, sdk-cli)"}
        try:
            async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
                answer = await client.post(product.url + "/v1/messages", json=ASK, headers=headers)
                return answer.status_code
        except httpx2.HTTPError:
            return 0

    return await asyncio.gather(*(one() for _ in range(times)))


def _web_processes(product: Product) -> list[psutil.Process]:
    children = psutil.Process(product.serve.process.pid).children()
    return [child for child in children if "proxy_project.web" in child.cmdline()]


async def _settled(product: Product, key: str) -> dict[str, Any]:
    """Return ada's row once it serves again or is invalid: a dead process's lease runs 90 s."""
    end = time.monotonic() + 150
    while time.monotonic() < end:
        answers = await _ask_many(product, key, 1)
        row = product.account("ada")
        if answers == [200] or row["status"] == "invalid":
            return row
        await asyncio.sleep(0.5)
    raise AssertionError(f"ada never settled: {row}")


@pytest.mark.slow
async def test_fifty_requests_over_two_processes_renew_an_expired_token_once(
    product: Product,
) -> None:
    simulator = product.simulator
    product.link(ADA)
    key = product.key()
    simulator.expire_access(ADA)
    simulator.script({"path": "/v1/oauth/token"}, delay=0.5)

    answers = await _ask_many(product, key, 50)

    assert answers == [200] * 50, [
        line for line in product.serve.said if "200 complete" not in line
    ]
    assert simulator.token_ledger()["refreshes"] == 1
    assert len(_web_processes(product)) == 2


@pytest.mark.slow
async def test_killing_a_web_process_under_load_loses_no_token(product: Product) -> None:
    simulator = product.simulator
    product.link(ADA)
    key = product.key()

    async def kill() -> None:
        for _ in range(3):
            await asyncio.sleep(0.4)
            simulator.expire_access(ADA)
            _web_processes(product)[0].kill()

    async def load() -> list[int]:
        return [status for _ in range(8) for status in await _ask_many(product, key, 10)]

    answers, _ = await asyncio.gather(load(), kill())

    # Those the killed process held break off; that is all.
    assert set(answers) <= {200, 0, 429, 503}
    assert 200 in answers
    row = await _settled(product, key)
    outcomes = [call["outcome"] for call in simulator.token_ledger()["calls"]]
    # Only a kill between the server's answer and the commit loses a token, and then it is said.
    assert ("reused" in outcomes) == (row["status"] == "invalid")
    if row["status"] == "invalid":
        assert row["reason"] == "refresh_interrupted"


@pytest.mark.slow
async def test_a_process_killed_between_rotation_and_commit_is_told_apart(
    product: Product,
) -> None:
    simulator = product.simulator
    product.link(ADA)
    key = product.key()
    simulator.expire_access(ADA)
    # The server rotates at once and answers late: whoever asked is dead by then.
    simulator.script({"path": "/v1/oauth/token"}, process=True, delay=30)

    asking = asyncio.create_task(_ask_many(product, key, 1))
    while not simulator.token_ledger()["refreshes"]:
        await asyncio.sleep(0.05)
    for process in _web_processes(product):
        process.kill()
    assert await asking == [0]

    row = await _settled(product, key)
    assert (row["status"], row["reason"]) == ("invalid", "refresh_interrupted")
