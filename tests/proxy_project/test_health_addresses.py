"""`/health` and what lies under it: answered soon whatever hangs, and to strangers in few words."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from accounts.states import Status
from proxy_project import health, insiders, tokens
from relay import breaker, drain, outcomes
from tests.lib.conftest import OwnValkey, own_valkey
from tests.relay.conftest import Relay, relay

__all__ = ["own_valkey", "relay"]

ALL = ("/health", "/health/liveness", "/health/readiness", "/health/claude-code")


async def get(relay: Relay, path: str, **headers: str) -> httpx2.Response:
    return await relay.http.get(path, headers=headers)


async def test_a_relay_that_serves_is_well_by_get_and_by_head(relay: Relay) -> None:
    await relay.link("ada")

    for path in ALL:
        told, bare = await get(relay, path), await relay.http.head(path)

        assert (told.status_code, bare.status_code) == (200, 200)
        assert (bare.content, bare.headers["content-length"]) == (b"", str(len(told.content)))
        assert told.headers["cache-control"] == "no-store"
        assert "set-cookie" not in told.headers
        assert (await relay.http.post(path)).status_code == 405
    assert relay.served() == []


async def test_a_process_that_drains_is_alive_and_not_ready(relay: Relay) -> None:
    await relay.link("ada")
    drain.begin()

    answers = {path: await get(relay, path) for path in ALL}

    assert [answer.status_code for answer in answers.values()] == [503, 200, 503, 503]
    assert answers["/health/claude-code"].json()["code"] == "draining"


async def test_what_keeps_accounts_out_is_told_by_its_class_alone(relay: Relay) -> None:
    # The first of all connects to the database, which may take longer than health waits.
    await get(relay, "/health/claude-code")
    empty = (await get(relay, "/health/claude-code")).json()
    await relay.link("ada", "grace")
    now = timezone.now()
    until = now + timedelta(hours=1)
    await relay.set("ada", status=Status.RATE_LIMITED, limited_until=until)
    one = await get(relay, "/health/claude-code")
    await relay.set("grace", cooldown_until=now + timedelta(minutes=5))
    none = await get(relay, "/health/claude-code", **{"x-forwarded-for": "203.0.113.9"})
    unready = await get(relay, "/health/readiness")
    asked = await relay.ask()

    assert empty["code"] == "pool_unavailable"
    assert one.status_code == 200
    assert (none.status_code, none.json()["code"]) == (503, "pool_limited")
    assert (asked.status_code, asked.headers["x-relay-error"]) == (429, "pool_limited")
    assert 0 < int(none.headers["retry-after"]) <= 300
    assert unready.json()["checks"]["accounts"] == "no account can serve now"
    assert "ada" not in none.text + unready.text


async def test_a_model_that_nobody_has_and_an_upstream_that_fails(relay: Relay) -> None:
    await relay.link("ada")
    for _ in range(breaker.DISCONNECTIONS):
        breaker.host.saw(accepted=False, connected=False)

    failing = await get(relay, "/health/claude-code")
    outcomes.reset()
    odd = await get(relay, "/health/claude-code?model=%1b%ff&model=x&" + "y" * 3000)

    assert failing.json()["code"] == "upstream_unavailable"
    assert odd.status_code in (200, 503)


async def test_accounts_are_named_to_an_admin_token_and_to_this_machine(
    relay: Relay, settings: Any
) -> None:
    await relay.link("ada")
    _, token = await sync_to_async(tokens.create)("probe", by="test")
    path = "/health/claude-code"
    here = await get(relay, path)
    settings.CONFIG = settings.CONFIG.model_copy(update={"public_url": "https://relay.example"})

    stranger, guess = await get(relay, path), await get(relay, path, authorization="Bearer adm_x")
    operator = await get(relay, path, authorization=f"Bearer {token}")

    assert [told["usable"] for told in here.json()["accounts"]] == [True]
    assert "accounts" not in stranger.json() | guess.json()
    assert operator.json()["accounts"][0]["name"] == "ada"


@pytest.mark.parametrize(
    ("peer", "headers", "is_here"),
    [
        ("127.0.0.1", {"host": "localhost:8000"}, True),
        ("::1", {"host": "[::1]:8000"}, True),
        ("::ffff:127.0.0.1", {"host": "127.0.0.1"}, True),
        ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "127.0.0.1"}, False),
        ("127.0.0.1", {"host": "localhost", "forwarded": "for=127.0.0.1"}, False),
        ("127.0.0.1", {"host": "evil.example"}, False),
        ("127.0.0.1", {"host": "[::"}, False),
        ("127.0.0.1", {}, False),
        ("203.0.113.9", {"host": "localhost"}, False),
        (None, {"host": "localhost"}, False),
    ],
)
def test_who_is_on_this_machine(peer: str | None, headers: dict[str, str], is_here: bool) -> None:
    given = [(name.encode(), value.encode()) for name, value in headers.items()]

    scope = {"client": peer and (peer, 4711), "headers": given}
    assert insiders.is_from_here(scope) is is_here


async def test_a_redis_that_hangs_is_told_of_within_three_seconds(
    own_valkey: OwnValkey, relay: Relay
) -> None:
    await relay.link("ada")
    own_valkey.freeze()
    started = time.monotonic()

    unready = await get(relay, "/health/readiness")

    own_valkey.thaw()
    assert time.monotonic() - started < 3
    assert unready.status_code == 503
    assert unready.json()["checks"]["redis"] == health.REDIS


async def test_a_database_that_hangs_is_asked_once_however_many_want_to_know(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await relay.link("ada")
    asked: list[float] = []

    def hang() -> None:
        asked.append(time.monotonic())
        time.sleep(1.6)

    monkeypatch.setattr(health, "_select", hang)
    monkeypatch.setattr(health, "PATIENCE", 0.7)

    first, second = [await get(relay, "/health/readiness") for _ in range(2)]

    assert time.monotonic() - asked[0] < 3
    assert (first.status_code, second.json()["reason"]) == (503, health.DATABASE)
    assert len(asked) == 1
