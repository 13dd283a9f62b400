"""What changes at the very moment when a request is on its way in or out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from lib import bus
from relay import live
from relay.trail import Ended, Trail
from sessions_limit import bans, issuing, keys, visits
from sessions_limit.bans import Suspect
from sessions_limit.models import ClientKey, Revocation
from tests.relay.conftest import Relay

BODY = json.dumps(
    {"model": "claude-opus-5-5", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
).encode()


def _message(relay: Relay, key: str) -> bytes:
    lines = [
        "POST /v1/messages HTTP/1.1",
        f"host: {relay.url.removeprefix('http://')}",
        f"authorization: Bearer {key}",
        "x-claude-code-session-id: one",
        f"content-length: {len(BODY)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + BODY


async def _connect(relay: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = relay.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def _answer(reader: asyncio.StreamReader) -> str:
    """Read a whole answer; return its head."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lengths = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
    await reader.readexactly(int(lengths[0].partition(":")[2]))
    return head


async def test_a_place_is_free_when_its_client_has_the_last_byte(relay: Relay) -> None:
    """Else whoever may have one request under way is refused the next one, for good."""
    await relay.link("ada")
    reader, writer = await _connect(relay)

    for _ in range(3):
        writer.write(_message(relay, relay.key))
        assert " 200 " in await _answer(reader)
        assert not visits.here
    writer.close()


def _revoke_key(key: ClientKey) -> None:
    issuing.revoke(key, by="test")


def _revoke_session(key: ClientKey) -> None:
    until = timezone.now() + timedelta(seconds=60)
    name = f"key:{key.pk}/one"
    Revocation.objects.create(name=name, until=until, by="test", target="session")
    bus.changed(bans.BANS)


@pytest.mark.parametrize(
    ("revoke", "expected"), [(_revoke_key, "client_auth"), (_revoke_session, "session_revoked")]
)
async def test_what_is_revoked_while_a_body_is_on_its_way_is_refused(
    relay: Relay, revoke: Callable[[ClientKey], None], expected: str
) -> None:
    await relay.link("ada")
    row, key = await sync_to_async(keys.create)(name="own", by="test")
    reader, writer = await _connect(relay)
    message = _message(relay, key)
    writer.write(message[:-20])
    while not visits.here:
        await asyncio.sleep(0.01)

    await sync_to_async(revoke)(row)
    writer.write(message[-20:])

    assert f"x-relay-error: {expected}" in await _answer(reader)
    assert relay.served() == []
    writer.close()


@pytest.mark.parametrize(
    ("revoke", "expected"),
    [(_revoke_key, Ended.REVOKED), (_revoke_session, Ended.SESSION_REVOKED)],
)
async def test_what_is_revoked_between_the_door_and_the_watch_is_cut_all_the_same(
    relay: Relay, revoke: Callable[[ClientKey], None], expected: Ended
) -> None:
    row, _ = await sync_to_async(keys.create)(name="own", by="test")
    trail = Trail()

    await sync_to_async(revoke)(row)
    with live.watched(row.pk, trail, Suspect(f"key:{row.pk}/one", row.pk, "", None)) as ended:
        assert await asyncio.wait_for(ended, 1) is expected


async def test_a_key_is_held_to_its_models_networks_and_budget_also_in_batches(
    relay: Relay,
) -> None:
    await relay.link("ada")
    terms: dict[str, Any] = {"model_patterns": ["claude-haiku-*"]}
    _, of_models = await sync_to_async(keys.create)(name="models", by="test", **terms)
    _, elsewhere = await sync_to_async(keys.create)(
        name="networks", by="test", networks=["192.0.2.0/24"]
    )

    async def ask(path: str, key: str, **body: Any) -> tuple[int, str]:
        answer = await relay.http.post(path, json=body, headers={"x-api-key": key})
        return answer.status_code, answer.headers.get("x-relay-error", "")

    asked = json.loads(BODY)
    haiku = asked | {"model": "claude-haiku-4-5"}
    batch = {"requests": [{"custom_id": "a", "params": asked}]}
    found = [
        await ask("/v1/messages", of_models, **haiku),
        await ask("/v1/messages", of_models, **asked),
        await ask("/v1/messages/count_tokens", of_models, **asked),
        await ask("/v1/messages/batches", of_models, **batch),
        await ask("/v1/messages", elsewhere, **asked),
    ]

    _, in_budget = await sync_to_async(keys.create)(name="budget", by="test", cost_per_day=10**9)
    found.append(await ask("/v1/messages/batches", in_budget, **batch))

    assert found == [(200, "")] + [(403, "forbidden")] * 5
    assert len(relay.simulator.requests(path="/v1/messages")) == 1
    assert not relay.simulator.requests(path="/v1/messages/batches")
