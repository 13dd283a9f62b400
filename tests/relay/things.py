"""What the tests of batches and files share."""

from __future__ import annotations

import asyncio
from typing import Any

from asgiref.sync import sync_to_async

from sessions_limit import keys
from tests.relay.conftest import Relay

BATCHES, FILES = "/v1/messages/batches", "/v1/files"
ASK = {"model": "claude-opus-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}


async def other_key(relay: Relay) -> dict[str, str]:
    """Make another key and return the headers that carry it."""
    _, key = await sync_to_async(keys.create)(name="other", by="test")
    return relay.auth | {"authorization": f"Bearer {key}"}


async def make_batch(relay: Relay, *ids: str, headers: dict[str, str] | None = None) -> Any:
    """Create a batch and return its object."""
    requests = [{"custom_id": name, "params": ASK} for name in ids or ("a",)]
    answer = await relay.http.post(
        BATCHES, json={"requests": requests}, headers=headers or relay.auth
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def make_file(
    relay: Relay,
    data: bytes = b"x",
    name: str = "a.txt",
    headers: dict[str, str] | None = None,
) -> Any:
    """Upload a file and return its object."""
    answer = await relay.http.post(
        FILES, files={"file": (name, data, "text/plain")}, headers=headers or relay.auth
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def asked(relay: Relay, path: str, method: str = "GET") -> list[str]:
    """Return which accounts were asked for an address, in order."""
    seen = [r for r in relay.simulator.requests(path=path) if r["method"] == method]
    return [r["account"].split("@")[0] for r in seen]


async def upstream_ended(relay: Relay, path: str) -> dict[str, Any]:
    """Wait until the upstream's last request to an address is over, and return it."""
    for _ in range(200):
        seen = relay.simulator.requests(path=path)
        if seen and seen[-1]["ended"]:
            return seen[-1]
        await asyncio.sleep(0.01)
    raise AssertionError("the upstream's request never ended")
