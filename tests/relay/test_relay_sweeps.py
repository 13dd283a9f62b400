"""What holds for one request holds for thousands, wherever they are cut or cancelled."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from asgiref.sync import sync_to_async

from accounts import facts
from relay import outcomes
from relay.ramp import ramp
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient
from tests.support.product import Product
from tests.support.simulator import Simulator
from usage import recorder

pytestmark = pytest.mark.slow
EVENTS = " ".join(f"word{i}" for i in range(100))


@pytest.fixture
def product(
    tmp_path: Path, simulator_process: Simulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Product]:
    simulator_process.reset()
    # All of its streams are one client's.
    monkeypatch.setenv("CLIENT_MAX_IN_FLIGHT", "-1")
    running = Product(tmp_path, simulator_process)
    yield running
    running.end()


def _body(text: str = "hello") -> bytes:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "claude-opus-5-5", "messages": messages, "stream": True}).encode()


def _words(stream: bytes) -> str:
    return "".join(re.findall(r'"text_delta","text":"([^"]*)"', stream.decode()))


def _without_id(body: bytes) -> bytes:
    return re.sub(rb"msg_[A-Za-z0-9]+", b"msg_", body)


async def test_a_thousand_streams_lose_double_and_reorder_nothing(product: Product) -> None:
    for name in ("ada", "grace", "linus"):
        product.link(f"{name}@example.com")
    headers = CLAUDE_CODE | {"x-api-key": product.key()}
    product.simulator.script({"path": "/v1/messages"}, times=None, events=100, pace=0.2)

    async def one(number: int) -> str:
        session = {"x-claude-code-session-id": f"s{number}"}
        client = await RawClient.post(product.url, "/v1/messages", headers | session, _body())
        seen = await client.all()
        client.hang_up()
        assert seen.ended_well, seen.head
        return _words(seen.body)

    texts = await asyncio.gather(*(one(number) for number in range(1000)))

    assert Counter(texts) == {EVENTS: 1000}
    children = psutil.Process(product.serve.process.pid).children()
    workers = [child for child in children if "proxy_project.web" in child.cmdline()]
    assert max(worker.memory_info().rss for worker in workers) < 200 * 1024 * 1024


async def test_an_answer_cut_at_every_byte_is_another_answer_or_visibly_cut(relay: Relay) -> None:
    await relay.link("ada", "grace")
    headers = CLAUDE_CODE | relay.auth
    text = "reply: " + "x" * 2000
    whole = (
        await (await RawClient.post(relay.url, "/v1/messages", headers, _body(text))).all()
    ).body
    first = whole.index(b"\n\n") + 2
    match = {"path": "/v1/messages"}

    async def cut_at(place: int) -> None:
        # So many cuts in a row are no everyday fault, and would be taken for one of the upstream.
        outcomes.reset()
        relay.simulator.script(match, cut_after=place)
        client = await RawClient.post(relay.url, "/v1/messages", headers, _body(text))
        seen = await client.all()
        client.hang_up()
        if place < first:
            assert seen.ended_well, place
            assert _words(seen.body) == "x" * 2000
        else:
            assert not seen.ended_well, place
            assert _without_id(whole).startswith(_without_id(seen.body)), place
            assert len(seen.body) == place

    for place in range(len(whole)):
        await cut_at(place)
        if place % 500 == 0:
            relay.simulator.clear_requests()
    assert 3000 < len(whole) < 6000


async def test_ten_thousand_cancelled_requests_leave_nothing_behind(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    # pytest would keep every line, and the test measures memory.
    caplog.set_level("ERROR")
    await relay.link("ada", "grace", "linus")
    process = psutil.Process()
    headers = CLAUDE_CODE | relay.auth
    relay.simulator.script({"path": "/v1/messages"}, times=None, events=20, pace=0.01)
    gate = asyncio.Semaphore(60)

    async def one(number: int) -> None:
        async with gate:
            text = f"reply: n{number} " + f"n{number} " * 20
            client = await RawClient.post(relay.url, "/v1/messages", headers, _body(text))
            seen = b""
            try:
                async with asyncio.timeout(random.uniform(0, 0.3)):
                    await client.head()
                    while piece := await client.chunk():
                        seen += piece
            except TimeoutError:
                pass
            client.hang_up()
            assert set(re.findall(r"n\d+", _words(seen).rpartition(" ")[0])) <= {f"n{number}"}

    async def batch(start: int, size: int) -> tuple[int, int]:
        await asyncio.gather(*(one(start + i) for i in range(size)))
        await relay.running.idle()
        relay.simulator.clear_requests()
        # The process keeps what the database has not yet; here no worker writes it.
        for drain in (recorder.drain, facts.drain):
            await sync_to_async(drain)()
        await asyncio.sleep(1.5)
        return process.num_fds(), process.memory_info().rss

    files, memory = await batch(0, 1000)
    for start in range(1000, 10_000, 1000):
        files_now, memory_now = await batch(start, 1000)

    assert files_now <= files + 20
    assert memory_now - memory < 40 * 1024 * 1024
    accounts = relay.simulator.accounts()
    assert [account["in_flight"] for account in accounts.values()] == [0, 0, 0]
    assert [ramp.in_flight(account.pk) for account in relay.accounts.values()] == [0, 0, 0]
    relay.simulator.clear_scripts()
    assert (await relay.ask("reply: still here")).json()["content"][0]["text"] == "still here"


async def test_a_storm_of_429s_costs_the_upstream_next_to_nothing(relay: Relay) -> None:
    names = [f"a{number}" for number in range(10)]
    await relay.link(*names)
    for name in names:
        window = {"5h": {"status": "rejected", "utilization": 1.0, "reset": time.time() + 9000}}
        relay.simulator.limit(f"{name}@example.com", window)
    relay.simulator.clear_requests()

    answers = []
    for _ in range(20):
        answers += await asyncio.gather(*(relay.ask(session=f"s{i}") for i in range(25)))

    assert {answer.status_code for answer in answers} == {429}
    assert all(8900 < int(answer.headers["retry-after"]) <= 9900 for answer in answers)
    attempts = Counter(relay.served())
    assert sum(attempts.values()) <= 1.1 * len(answers)
    # The first wave may meet an account before its first refusal is known; nobody does after.
    assert len(attempts) == 10
    relay.simulator.clear_requests()
    await relay.ask()
    assert relay.served() == []
