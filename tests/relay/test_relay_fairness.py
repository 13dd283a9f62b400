"""A short pool is shared by keys: who waits is served in turn, and told when it was in vain."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async

from accounts.pool import Member, Pool
from accounts.states import Kind, Status
from lib import counters, ledger
from lib import redis as clients
from lib.ledger import Allowance
from relay import drain, line, places, rivals
from relay.line import Line
from relay.quota import Place, Refused
from relay.ramp import ramp
from relay.request import ClientRequest
from relay.trail import Trail
from relay.waiting import Wish
from sessions_limit import issuing
from sessions_limit.keys import Key
from sessions_limit.models import ClientKey
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient
from usage import recorder
from usage.models import RequestRecord


async def another_key(relay: Relay, name: str) -> tuple[ClientKey, Relay]:
    row, text = await sync_to_async(issuing.create)(name=name, by="test")
    return row, replace(relay, key=text)


async def until_waiting(count: int) -> None:
    async with asyncio.timeout(5):
        while len(line.line.queue) != count:
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def asking(relay: Relay, count: int, **given: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Ask in so many sessions at once; what has not ended with the block is given up."""
    asked = (relay.ask(stream=True, session=f"s{number}", **given) for number in range(count))
    tasks = [asyncio.create_task(one) for one in asked]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def whose(relay: Relay) -> list[str]:
    """Return what the requests that reached the upstream say, in order."""
    bodies = (
        json.loads(base64.b64decode(one["body_b64"]))
        for one in relay.simulator.requests(path="/v1/messages")
    )
    return [body["messages"][0]["content"] for body in bodies]


async def test_a_key_with_two_requests_does_not_wait_behind_the_fifty_of_another(
    relay: Relay,
) -> None:
    await relay.link("ada")
    await relay.set("ada", max_in_flight=2)
    _, small = await another_key(relay, "small")
    relay.simulator.script({"path": "/v1/messages"}, times=None, events=8, pace=0.02)

    async with asking(relay, 50, text="big") as big:
        await until_waiting(16)
        both = await asyncio.gather(*(small.ask("small", stream=True) for _ in range(2)))
        refused = [task.result() for task in big if task.done()]

    assert [answer.status_code for answer in both] == [200, 200]
    order = whose(relay)
    assert order[:2] == ["big", "big"]
    assert "small" in order[2:4]
    assert order[:6].count("small") == 2
    gone = [answer for answer in refused if answer.status_code == 429]
    assert 32 <= len(gone) <= 34
    assert {answer.headers["x-relay-error"] for answer in gone} == {"pool_limited"}
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in gone)


async def test_who_waited_in_vain_is_told_when_to_come_back_and_the_record_says_so(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "PATIENCE", 0.3)
    counters.deltas.reset()
    await relay.link("ada")
    await relay.set("ada", max_in_flight=1)
    relay.simulator.script({"path": "/v1/messages"}, events=100, pace=0.03)

    async with asking(relay, 1):
        while not relay.served():
            await asyncio.sleep(0.01)
        refused = await relay.ask()
    await relay.running.idle()
    await recorder.appender.flushed()
    await sync_to_async(recorder.drain)()

    assert refused.status_code == 429
    assert refused.headers["x-relay-error"] == "pool_limited"
    assert "x-should-retry" not in refused.headers
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "busy" in refused.json()["error"]["message"]
    record = await RequestRecord.objects.aget(status=429)
    assert [attempt["row"] for attempt in record.trail["attempts"]] == ["quota"]
    assert 0.3 <= record.trail["queued"] < 1
    assert counters.deltas._added["waits", "gave_up"] == 1


async def test_who_waits_leaves_with_its_client_with_its_key_and_with_the_process(
    relay: Relay,
) -> None:
    await relay.link("ada")
    await relay.set("ada", max_in_flight=1)
    relay.simulator.script({"path": "/v1/messages"}, events=100, pace=0.03)
    row, revoked = await another_key(relay, "revoked")
    body = json.dumps({"model": "claude-opus-5-5", "max_tokens": 9, "messages": []}).encode()

    async with asking(relay, 1), asking(revoked, 1) as of_revoked:
        while not relay.served():
            await asyncio.sleep(0.01)
        client = await RawClient.post(relay.url, "/v1/messages", CLAUDE_CODE | relay.auth, body)
        async with asking(relay, 1) as last:
            await until_waiting(3)
            client.hang_up()
            await until_waiting(2)
            await sync_to_async(issuing.revoke)(row, by="test")
            await until_waiting(1)
            (unauthorized,) = await asyncio.gather(*of_revoked)
            drain.begin()
            (draining,) = await asyncio.gather(*last)

    assert unauthorized.status_code == 401
    assert (draining.status_code, draining.headers["x-relay-error"]) == (503, "draining")
    assert len(relay.served()) == 1
    assert not len(line.line.queue)


STEP = 0.2


def steps(relay: Relay, name: str) -> list[float]:
    """Return when the requests came to an account, in seconds after the first of them."""
    times = [
        float(one["at"])
        for one in relay.simulator.requests(path="/v1/messages", account=f"{name}@example.com")
    ]
    return [time - times[0] for time in times]


async def test_an_account_that_returns_is_asked_once_then_twice_then_four_times(
    relay: Relay,
) -> None:
    (ada,) = await relay.link("ada")
    ramp.restart(ada.pk)
    relay.simulator.script(
        {"path": "/v1/messages"}, times=None, first_byte_delay=STEP, events=60, pace=0.03
    )

    async with asking(relay, 12):
        while len(relay.served()) < 12:
            await asyncio.sleep(0.01)

    # Whoever comes next has waited for an answer to begin; the upstream's clock says so.
    came = steps(relay, "ada")
    assert came[1] >= STEP
    assert came[2] >= 2 * STEP
    assert came[4] >= 3 * STEP
    assert came[-1] < line.PATIENCE


async def test_the_sessions_of_an_account_that_fell_out_do_not_come_to_another_all_at_once(
    relay: Relay, settings: Any
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"routing_strategy": "priority"})
    await relay.link("ada", "grace")
    await relay.set("ada", priority=1)
    relay.simulator.limit("ada@example.com", {"5h": {"status": "rejected"}})
    relay.simulator.script(
        {"account": "grace@example.com"}, times=None, first_byte_delay=STEP, events=2
    )

    answers = await asyncio.gather(*(relay.ask(session=f"s{n}") for n in range(6)))

    assert [answer.status_code for answer in answers] == [200] * 6
    came = steps(relay, "grace")
    assert len(came) == 6
    assert came[1] >= STEP
    assert came[3] >= 2 * STEP
    assert came[-1] < line.PATIENCE


# Two processes, as far as Redis is concerned.


def process(name: str) -> Line:
    """Return the line of a process, whose places are counted in Redis only."""
    numbers = itertools.count()

    class Counted(Place):
        def leave(self) -> None:
            asyncio.get_running_loop().create_task(ledger.leave("one", self._id, 0))
            self._id = ""
            super().leave()

    async def enter(
        member: Member, request: ClientRequest, trail: Trail, *, is_counted: bool
    ) -> Place | Refused:
        id = f"{name}.{next(numbers)}"
        if await ledger.enter("one", Allowance(in_flight=1), id) is not None:
            return Refused(0.0)
        return Counted(member, id, trail)

    async def look() -> Pool:
        return Pool()

    async def meet(accounts: Sequence[int]) -> set[int]:
        return await rivals.met(accounts, name)

    return Line(enter, look, meet)


async def test_a_process_that_is_always_full_does_not_keep_all_from_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 5.0)
    await clients.for_requests().flushdb()
    busy, other = process("busy"), process("other")
    plain = Member(1, "", Kind.OAUTH, Status.ACTIVE, None, None, None, UUID(int=1), "")
    one = replace(plain, max_in_flight=1)
    request = ClientRequest("rly_1", Key(1, "key", None), "POST", "/v1/messages", "", (), b"")

    async def ask(line: Line) -> None:
        until = asyncio.get_running_loop().time() + 100
        place = await places.admit(one, Wish(request, Trail(), lambda view: [one]), until, line)
        assert place is not None
        with place:
            await asyncio.sleep(0.01)

    async def come_again() -> None:
        while True:
            await ask(busy)

    crowd = [asyncio.create_task(come_again()) for _ in range(5)]
    await asyncio.sleep(0.1)
    for _ in range(3):
        await asyncio.wait_for(ask(other), 3)

    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    await asyncio.sleep(0.05)
    await clients.for_requests().flushdb()
    await clients.close()
