"""A relay at work while something it stands on fails: streams run, sessions ask, all is counted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from asgiref.sync import sync_to_async

from accounts import facts
from tests.lib.conftest import OwnValkey, loop_ends, own_valkey
from tests.relay.conftest import CLAUDE_CODE, Relay, relay
from tests.relay.raw import RawClient, Seen
from usage import recorder
from usage.models import RequestRecord

__all__ = ["loop_ends", "own_valkey", "relay"]

STREAMS, EVENTS, LONGEST = 4, 40, 3.0


@dataclass
class Work:
    """What was asked during a fault, how it ended and how long the slowest answer took."""

    relay: Relay
    asked: set[str] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)
    slowest: float = 0.0
    seen: list[Seen] = field(default_factory=list)

    async def ask(self, session: str) -> int:
        """Ask once as a known session."""
        began = time.monotonic()
        answer = await self.relay.ask(session=session)
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.asked.add(answer.headers["x-relay-request-id"])
        self.statuses.append(answer.status_code)
        return answer.status_code

    async def keep_asking(self, seconds: float) -> None:
        """Ask as each known session, over and over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.gather(*(self.ask(session) for session in "abcd"))
            await asyncio.sleep(0.1)

    async def stream(self, session: str) -> None:
        """Read one stream to its end."""
        body = {
            "model": "claude-opus-5-5",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": "tell"}],
            "stream": True,
        }
        headers = CLAUDE_CODE | self.relay.auth | {"x-claude-code-session-id": session}
        url = self.relay.url
        client = await RawClient.post(url, "/v1/messages", headers, json.dumps(body).encode())
        seen = await client.all()
        client.hang_up()
        self.seen.append(seen)
        name = "x-relay-request-id: "
        self.asked.add(seen.head[seen.head.index(name) + len(name) :].split("\r\n")[0])

    def was_never_held_up(self) -> None:
        """All was answered in time, and every stream came whole."""
        assert set(self.statuses) == {200}
        assert self.slowest < LONGEST
        for seen in self.seen:
            assert seen.ended_well
            assert seen.body.rstrip().endswith(b'data: {"type":"message_stop"}')
            assert seen.body.count(b"event: content_block_delta") >= EVENTS

    async def is_recorded_once(self, within: float = 15.0) -> None:
        """Every request has its one record, and the upstream knows of no other."""
        await self.relay.running.idle()
        end = time.monotonic() + within
        ids: list[str] = []
        while set(ids) != self.asked and time.monotonic() < end:
            await sync_to_async(recorder.drain)()
            await sync_to_async(facts.drain)()
            ids = [id async for id in RequestRecord.objects.values_list("request_id", flat=True)]
            await asyncio.sleep(0.05)
        assert sorted(ids) == sorted(self.asked)
        served = RequestRecord.objects.filter(status=200)
        answered = [r for r in self.relay.simulator.requests("/v1/messages") if r["status"] == 200]
        assert await served.acount() == len(answered)


@pytest.fixture
async def work(relay: Relay) -> Work:
    """Two accounts, four sessions that were here before, and a pool that has been seen."""
    await relay.link("ada", "grace")
    begun = Work(relay)
    for session in "abcd":
        await begun.ask(session)
    return begun


@asynccontextmanager
async def streams_running(work: Work, seconds: float) -> AsyncIterator[None]:
    """Let streams run so long while something happens, and wait for their end."""
    work.relay.simulator.script(
        {"path": "/v1/messages"}, times=STREAMS, events=EVENTS, pace=seconds / EVENTS
    )
    running = [asyncio.create_task(work.stream(session)) for session in "abcd"]
    await asyncio.sleep(0.3)
    yield
    await asyncio.gather(*running)


__all__ += ["OwnValkey"]
