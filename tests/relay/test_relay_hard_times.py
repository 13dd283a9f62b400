"""A client that leaves, a database that is away, odd names: nothing is lost, kept or repeated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from accounts import pool
from lib.redis import for_requests
from relay.upstream import aiohttp as attempts
from relay.upstream import sessions
from relay.upstream.base import NotConnected
from sessions_limit import keys
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient, RawUpstream
from tests.relay.things import BATCHES, make_batch

JSON = b"content-type: application/json"
REJECTED = (
    b"event: error\n"
    b'data: {"type":"error","error":{"type":"authentication_error","message":"x"}}\n\n'
)


def _use(settings: Any, upstream: RawUpstream) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_base_url": upstream.url})


async def test_an_answer_is_closed_when_the_client_leaves_during_the_refresh(
    relay: Relay, settings: Any
) -> None:
    await relay.link("ada")
    relay.simulator.script({"path": "/v1/oauth/token"}, delay=5)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n"
    body = {"model": "claude-opus-5-5", "messages": [], "stream": True}
    async with RawUpstream([head + REJECTED, 30.0]) as upstream:
        _use(settings, upstream)
        client = await RawClient.post(
            relay.url, "/v1/messages", CLAUDE_CODE | relay.auth, json.dumps(body).encode()
        )
        await asyncio.sleep(0.5)

        client.hang_up()

        await asyncio.wait_for(upstream.ended.wait(), 1)


async def test_a_session_stays_where_it_moved_to_for_every_process(relay: Relay) -> None:
    await relay.link("ada", "grace")
    session = "3f0c2d2e-0000-4000-8000-000000000001"
    await relay.ask(session=session)
    first = relay.served()[-1]
    other = {"ada": "grace", "grace": "ada"}[first]
    relay.simulator.limit(f"{first}@example.com", {"5h": {"status": "rejected"}})
    relay.simulator.script({"account": f"{other}@example.com"}, delay=0.5)

    asking = asyncio.ensure_future(relay.ask(session=session))
    await asyncio.sleep(0.3)
    # A connection that is made anew takes a moment longer than one that is there.
    await for_requests().connection_pool.disconnect()
    await asking
    await relay.running.idle()

    bound = [await for_requests().get(name) for name in await for_requests().keys("session:*")]
    assert relay.served()[-1] == other
    assert bound == [str(relay.accounts[other].pk)]


@pytest.fixture
async def without_accounts_table(relay: Relay) -> AsyncIterator[None]:
    def rename(old: str, new: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")

    await sync_to_async(rename)("accounts_account", "accounts_away")
    yield
    await sync_to_async(rename)("accounts_away", "accounts_account")


@pytest.mark.usefixtures("without_accounts_table")
async def test_a_database_that_fails_is_a_503_without_a_traceback(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    pool.snapshot.reset()

    answer = await relay.ask()

    assert answer.status_code == 503
    assert answer.headers["x-relay-error"] == "pool_unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_model_name_longer_than_the_api_takes_is_refused(relay: Relay) -> None:
    await relay.link("ada")

    answer = await relay.ask(model="m" * 257)

    assert answer.status_code == 400
    assert relay.served() == []


@pytest.mark.parametrize(
    "name", ["..", ".", "%2e%2e", "..%2fmessages%2fbatches", "a%5cb", "%2F..%2Ffiles"]
)
async def test_a_models_name_leads_nowhere_else(relay: Relay, name: str) -> None:
    await relay.link("ada")
    client = await RawClient.request(relay.url, "GET", f"/v1/models/{name}", relay.auth)

    head = await client.head()

    assert " 400 " in head
    assert "x-relay-error: bad_path" in head
    assert relay.simulator.requests(path=f"/v1/models/{name}") == []


async def test_a_limit_told_by_what_is_no_message_does_not_bench_the_account(
    relay: Relay, settings: Any
) -> None:
    await relay.link("ada")
    made = await make_batch(relay)
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"x"}}'
    spent = b"anthropic-ratelimit-unified-7d_opus-status: rejected\r\nrequest-id: r"
    refusal = b"HTTP/1.1 429 X\r\n%b\r\n%b\r\ncontent-length: %d\r\n\r\n" % (
        JSON,
        spent,
        len(body),
    )
    url = settings.CONFIG.upstream_base_url
    async with RawUpstream([refusal + body]) as upstream:
        _use(settings, upstream)
        limited = await relay.http.get(f"{BATCHES}/{made['id']}", headers=relay.auth)
    settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_base_url": url})

    answer = await relay.ask()

    assert (limited.status_code, answer.status_code) == (429, 200)


async def test_text_in_a_header_keeps_its_bytes(relay: Relay, settings: Any) -> None:
    await relay.link("ada")
    ok = b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\ncontent-length: 2\r\n\r\n{}"
    body = b'{"model":"claude-opus-5-5","messages":[]}'
    async with RawUpstream([ok]) as upstream:
        _use(settings, upstream)
        # RawClient writes latin-1: these are the bytes of UTF-8.
        name = "claude-cli/2 (caf\u00e9)".encode().decode("latin-1")
        headers = relay.auth | {"user-agent": name}
        await (await RawClient.post(relay.url, "/v1/messages", headers, body)).head()

    assert name.encode("latin-1") in upstream.requests[0]


async def test_a_name_that_is_never_found_counts_as_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(*_: object, **__: object) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hang)
    monkeypatch.setattr(sessions, "CONNECT_SECONDS", 0.2)
    upstream = attempts.AiohttpUpstream()

    with pytest.raises(NotConnected):
        await asyncio.wait_for(upstream.send("GET", "http://nowhere.test/", [], b""), 3)
    await upstream.close()


async def test_a_new_key_works_for_parallel_requests_at_once(relay: Relay) -> None:
    await relay.link("ada")
    await relay.ask()
    _, relay.key = await sync_to_async(keys.create)(name="new", by="test")
    # The hint was lost: the snapshot does not know the key yet.
    keys.snapshot._version = keys.snapshot._read_version

    answers = await asyncio.gather(*(relay.ask() for _ in range(8)))

    assert {answer.status_code for answer in answers} == {200}
