"""The whole product with two web processes admits exactly as many sessions as there may be."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.relay.raw import RawClient
from tests.support.product import Product
from tests.support.simulator import Simulator

BODY = json.dumps(
    {
        "model": "claude-opus-5-5",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": "hello"}],
    }
).encode()


@pytest.fixture
def product(
    tmp_path: Path, simulator_process: Simulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Product]:
    simulator_process.reset()
    monkeypatch.setenv("SESSION_LIMIT", "on")
    # A client may have no hundred requests under way, whatever their sessions.
    monkeypatch.setenv("CLIENT_MAX_IN_FLIGHT", "-1")
    running = Product(tmp_path, simulator_process)
    yield running
    running.end()


async def _ask(product: Product, key: str, session: str) -> str:
    """Ask on a connection of its own, so that both processes are asked."""
    agent = "claude-cli/2.1.328 (external, sdk-cli)"
    headers = {"x-api-key": key, "user-agent": agent, "x-claude-code-session-id": session}
    client = await RawClient.post(product.url, "/v1/messages", headers, BODY)
    head = await client.head()
    client.hang_up()
    for line in head.split("\r\n"):
        if line.startswith("x-relay-error: "):
            return line.removeprefix("x-relay-error: ")
    return head.split(" ")[1]


async def _ask_at_once(product: Product, key: str, sessions: list[str]) -> Counter[str]:
    return Counter(await asyncio.gather(*(_ask(product, key, session) for session in sessions)))


@pytest.mark.slow
async def test_three_of_a_hundred_sessions_are_admitted_and_one_session_is_one(
    product: Product,
) -> None:
    for name in ("ada", "grace"):
        product.link(f"{name}@example.com")
    keys = [product.key(f"key-{number}") for number in range(4)]

    for key in keys[1:]:
        found = await _ask_at_once(product, key, [f"session-{number}" for number in range(100)])
        assert found == {"200": 3, "session_limit": 97}
    product.simulator.clear_requests()
    assert await _ask_at_once(product, keys[0], ["one"] * 30) == {"200": 30}

    asked = product.simulator.requests(path="/v1/messages")
    assert len(asked) == 30
    assert len({request["account"] for request in asked}) == 1
