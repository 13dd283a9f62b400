"""The admin API as the relay serves it, beside the relay's own addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from accounts import adding
from accounts.states import Kind
from proxy_project import tokens
from sessions_limit import keys
from tests.conftest import RunningRelay
from tests.support.simulator import Simulator


async def test_the_api_is_served_beside_the_relay(
    running_relay: RunningRelay, simulator: Simulator
) -> None:
    client = running_relay.client
    _, token = await sync_to_async(tokens.create)("deploy", by="ada")
    await sync_to_async(adding.add_secret)(Kind.API_KEY, "key", simulator.api_key("k"), "ada")
    allowed = {"authorization": f"Bearer {token}"}

    listed = await client.get("/api/accounts", headers=allowed)
    path = f"/api/accounts/{listed.json()['items'][0]['id']}/test"
    tested = await client.post(path, headers=allowed)
    unknown = await client.get("/api/nothing", headers=allowed)
    theirs = [await client.get(f"/api/{name}/x", headers=allowed) for name in ("oauth", "claude")]
    relayed = await client.get("/v1/models", headers=allowed)
    _, key = await sync_to_async(keys.create)("ci", by="ada", networks=["127.0.0.0/8"])
    mine = await client.get("/api/me", headers={"x-api-key": key})
    elsewhere = {"x-api-key": key, "x-forwarded-for": "10.0.0.1"}
    pretended = await client.get("/api/me", headers=elsewhere)
    large = await client.post("/login/", content=b"x" * 3_000_000)
    endless = await client.post("/login/", content=_pieces())

    assert tested.json()["ok"] is True
    assert unknown.headers["content-type"] == "application/problem+json"
    assert [answer.json()["type"] for answer in theirs] == ["error", "error"]
    assert relayed.status_code == 401
    assert (mine.status_code, mine.json()["name"]) == (200, "ci")
    # Whoever is no trusted proxy cannot say from where it comes.
    assert pretended.status_code == 200
    assert (large.status_code, endless.status_code) == (413, 411)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite counts no connections")
async def test_no_request_leaves_a_connection_behind(running_relay: RunningRelay) -> None:
    before = await sync_to_async(_connections)()

    for number in range(12):
        guess = {"authorization": f"Bearer adm_{number}"}
        answer = await running_relay.client.get("/api/accounts", headers=guess)
        assert answer.status_code == 401

    assert await sync_to_async(_connections)() <= before + 1


def _connections() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


async def _pieces() -> AsyncIterator[bytes]:
    yield b"{}"
