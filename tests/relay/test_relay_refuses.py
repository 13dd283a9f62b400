"""What the relay cannot or will not serve is said clearly, and nothing of it goes upstream."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import Account
from relay import drain, request
from tests.relay.conftest import CLAUDE_CODE, Relay


async def test_an_empty_pool_says_so(relay: Relay) -> None:
    answer = await relay.ask()

    assert answer.status_code == 503
    assert answer.headers["x-relay-error"] == "pool_unavailable"
    assert "No account is linked" in answer.json()["error"]["message"]


async def test_a_pool_of_invalid_accounts_is_unavailable(relay: Relay) -> None:
    await relay.link("ada")
    await Account.objects.aupdate(status="invalid")

    answer = await relay.ask()

    assert answer.status_code == 503
    assert answer.headers["x-relay-error"] == "pool_unavailable"


async def test_when_all_are_limited_the_wait_is_true(relay: Relay) -> None:
    await relay.link("ada", "grace")
    reset = int(time.time()) + 100
    for name, at in (("ada", reset), ("grace", reset + 500)):
        window = {"5h": {"status": "rejected", "utilization": 1.0, "reset": at}}
        relay.simulator.limit(f"{name}@example.com", window)

    first = await relay.ask()
    asked = len(relay.served())
    second = await relay.ask()

    for answer in (first, second):
        assert answer.status_code == 429
        assert answer.headers["x-relay-error"] == "pool_limited"
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert abs(int(answer.headers["retry-after"]) - (reset - time.time())) <= 2
    assert len(relay.served()) == asked == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"not json", "bad_json"),
        (b"", "bad_json"),
        (b'{"model": "m", "metadata": ' + b"[" * 100_000, "bad_json"),
        (b"[" * 100_000, "bad_request"),
        (b'{"model": NaN}', "bad_json"),
        (b'{"messages": []}', "bad_request"),
        (b'{"model": ""}', "bad_request"),
        (b'{"model": 7}', "bad_request"),
        (b'["model"]', "bad_request"),
    ],
)
async def test_a_body_that_the_api_would_not_take_is_refused(
    relay: Relay, body: bytes, code: str
) -> None:
    await relay.link("ada")

    answer = await relay.http.post("/v1/messages", content=body, headers=relay.auth)

    assert answer.status_code == 400
    assert answer.headers["x-relay-error"] == code
    assert answer.headers["x-should-retry"] == "false"
    assert relay.served() == []


async def test_a_body_over_the_limit_is_refused_with_and_without_a_length(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await relay.link("ada")
    monkeypatch.setattr(request, "LIMIT", 100_000)

    async def pieces():  # type: ignore[no-untyped-def]
        for _ in range(20):
            yield b"x" * 10_000

    whole = await relay.http.post("/v1/messages", content=b"x" * 100_001, headers=relay.auth)
    chunked = await relay.http.post("/v1/messages", content=pieces(), headers=relay.auth)

    for answer in (whole, chunked):
        assert answer.status_code == 413
        assert answer.json()["error"]["type"] == "request_too_large"
    assert relay.served() == []


async def test_a_compressed_body_is_refused(relay: Relay) -> None:
    headers = relay.auth | {"content-encoding": "gzip"}

    answer = await relay.http.post("/v1/messages", content=b"x", headers=headers)

    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/messages", 405),
        ("POST", "/v1/models", 405),
        ("POST", "/v1/complete", 404),
        ("GET", "/v1/organizations/me", 404),
        ("POST", "/v1/oauth/token", 404),
        ("POST", "/v1/messages/", 404),
        ("GET", "/v1/models/a/b", 404),
    ],
)
async def test_other_addresses_are_not_served(
    relay: Relay, method: str, path: str, status: int
) -> None:
    await relay.link("ada")
    relay.simulator.clear_requests()

    answer = await relay.http.request(method, path, headers=relay.auth)

    assert answer.status_code == status
    assert answer.headers["x-should-retry"] == "false"
    assert relay.simulator.requests() == []


async def test_probes_are_answered_locally(relay: Relay) -> None:
    for method, path in (("HEAD", "/api/hello"), ("HEAD", "/"), ("GET", "/")):
        answer = await relay.http.request(method, path, headers=CLAUDE_CODE)
        assert answer.status_code == 200
        assert answer.content == b""
    assert relay.simulator.requests() == []


async def test_a_browser_gets_the_console_at_the_root(relay: Relay) -> None:
    answer = await relay.http.get("/", headers={"accept": "text/html,*/*"})

    assert answer.status_code in (200, 302)
    assert answer.headers["content-type"].startswith("text/html") or answer.has_redirect_location


async def test_while_draining_new_requests_are_told_to_come_back(relay: Relay) -> None:
    await relay.link("ada")
    # A server that drains closes as soon as nobody is connected; this keeps a connection open.
    await relay.ask()
    drain.begin()

    answer = await relay.ask()

    assert answer.status_code == 503
    assert answer.headers["x-relay-error"] == "draining"
    assert int(answer.headers["retry-after"]) >= 1


async def test_health_says_whether_a_request_could_be_served(relay: Relay) -> None:
    healthy = await relay.http.get("/health")
    drain.begin()
    draining = await relay.http.get("/health")

    assert healthy.status_code == 200
    assert healthy.json()["status"] == "healthy"
    assert draining.status_code == 503
    assert draining.json()["reason"] == "draining"


async def test_an_account_that_cools_down_makes_the_client_wait_for_just_that(relay: Relay) -> None:
    await relay.link("ada")
    await Account.objects.aupdate(cooldown_until=timezone.now() + timedelta(seconds=30))

    answer = await relay.ask()

    assert answer.status_code == 429
    assert 28 <= int(answer.headers["retry-after"]) <= 30
