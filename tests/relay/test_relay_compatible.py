"""Compatible endpoints serve in the same pool, in their own words; nothing of the client leaks."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from accounts import adding
from accounts.models import Account
from relay import breaker, capabilities, catalogue, model_lists
from relay.breaker import DISCONNECTIONS
from relay.facts import Facts, Failed
from relay.verdicts import ROWS, judge
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawUpstream
from tests.relay.things import BATCHES, asked, make_batch

LIST = b'{"object":"list","data":[{"id":"glm-5.3","object":"model","created":1760000000},{"no":1}]}'


@pytest.fixture
def loopback(settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"allow_loopback_upstreams": True})


async def add(relay: Relay, name: str, base_url: str, **fields: Any) -> Account:
    given = {"secret": "sk-endpoint"} | fields
    account: Account = await sync_to_async(adding.add_compatible)(
        name, by="test", base_url=base_url, **given
    )
    relay.accounts[name] = account
    return account


def _answer(status: bytes, body: bytes = b"", *lines: bytes) -> list[bytes | float | None]:
    head = [b"HTTP/1.1 " + status, b"content-type: application/json", *lines]
    return [b"\r\n".join([*head, b"content-length: %d" % len(body), b"", b""]) + body]


async def test_an_endpoint_is_asked_with_its_own_credential_and_its_own_model(
    relay: Relay, loopback: None
) -> None:
    secret = relay.simulator.api_key("endpoint")
    await add(
        relay,
        "endpoint",
        f"{relay.simulator.url}/",
        auth="x-api-key",
        secret=secret,
        forwards_betas=False,
        model_map={"claude-opus-*": "claude-haiku-4-5"},
    )
    body = b'{ "messages":[{"role":"user","content":"model"}],"max_tokens":9,  "model" : "%s" }'

    answer = await relay.http.post(
        "/v1/messages?beta=true",
        content=body % b"claude-opus-5-5",
        headers=CLAUDE_CODE | relay.auth | {"anthropic-beta": "context-1m-2025-08-07"},
    )

    assert answer.status_code == 200, answer.text
    (seen,) = relay.simulator.requests(path="/v1/messages")
    assert seen["target"] == "/v1/messages?beta=true"
    assert base64.b64decode(seen["body_b64"]) == body % b"claude-haiku-4-5"
    sent = dict(seen["headers"])
    assert sent["x-api-key"] == secret
    assert sent["anthropic-version"] == "2023-06-01"
    assert not {"authorization", "anthropic-beta"} & sent.keys()
    assert relay.simulator.seen(relay.key) == 0


async def test_a_redirect_of_an_endpoint_is_not_followed(relay: Relay, loopback: None) -> None:
    inside = f"location: {relay.simulator.url}/v1/messages".encode()

    async with RawUpstream(_answer(b"307 Temporary Redirect", b"", inside)) as upstream:
        await add(relay, "endpoint", upstream.url)
        answer = await relay.ask()

    assert answer.status_code == 502
    assert "location" not in answer.headers
    assert relay.simulator.requests() == []


async def test_an_endpoint_that_is_away_does_not_hold_up_the_others(
    relay: Relay, loopback: None
) -> None:
    async with RawUpstream([b""]) as gone:
        url = gone.url
    await add(relay, "endpoint", url)
    await relay.link("ada")

    answers = [(await relay.ask()).status_code for _ in range(4)]

    assert answers == [200] * 4
    assert breaker.host.admits()


async def test_while_the_api_is_spared_an_endpoint_of_others_serves(
    relay: Relay, loopback: None
) -> None:
    await relay.link("ada")
    for _ in range(DISCONNECTIONS):
        breaker.host.saw(accepted=False, connected=False)
    assert breaker.host.admits()
    assert (await relay.ask()).status_code == 503
    async with RawUpstream(_answer(b"200 OK", b"{}")) as other:
        await add(relay, "endpoint", other.url)

        answers = [(await relay.ask()).status_code for _ in range(3)]

    assert answers == [200] * 3
    assert relay.served() == []


async def test_a_request_for_another_upstream_leaves_the_api_its_turn(
    relay: Relay, loopback: None
) -> None:
    for _ in range(DISCONNECTIONS):
        breaker.host.saw(accepted=False, connected=False)
    async with RawUpstream(_answer(b"200 OK", b"{}")) as other:
        await add(relay, "endpoint", other.url)

        assert (await relay.ask()).status_code == 200

    assert breaker.host.has_turn()


async def test_an_endpoint_that_fails_leads_nobody_to_an_api_that_is_spared(
    relay: Relay, loopback: None
) -> None:
    await relay.link("ada", "grace")
    for _ in range(DISCONNECTIONS):
        breaker.host.saw(accepted=False, connected=False)
    assert breaker.host.admits()
    async with RawUpstream(_answer(b"401 No", b"{}")) as other:
        await add(relay, "endpoint", other.url)

        answer = await relay.ask()

    assert other.requests
    assert relay.served() == []
    assert (answer.status_code, answer.headers["x-relay-error"]) == (503, "upstream_unavailable")


async def test_an_endpoint_that_was_closed_by_a_setting_is_not_connected_to(
    relay: Relay, loopback: None, settings: Any
) -> None:
    async with RawUpstream(_answer(b"200 OK", b"{}")) as upstream:
        await add(relay, "endpoint", upstream.url)
        settings.CONFIG = settings.CONFIG.model_copy(update={"allow_loopback_upstreams": False})
        answer = await relay.ask()

        assert upstream.requests == []
    assert answer.status_code == 502


async def test_batches_are_made_by_anthropic_alone(relay: Relay, loopback: None) -> None:
    async with RawUpstream(_answer(b"200 OK", b"{}")) as upstream:
        await add(relay, "endpoint", upstream.url)
        answer = await relay.http.post(BATCHES, json={"requests": []}, headers=relay.auth)
        assert answer.status_code == 503

        await relay.link("ada")
        for _ in range(3):
            await make_batch(relay)

        assert upstream.requests == []
    assert asked(relay, BATCHES, "POST") == ["ada"] * 3


async def test_the_models_of_an_endpoint_are_offered_by_the_names_of_its_map(
    relay: Relay, loopback: None
) -> None:
    async with RawUpstream(_answer(b"200 OK", LIST)) as upstream:
        names = {"opus-of-ours": "glm-5.3", "claude-*": "glm-5.3"}
        account = await add(relay, "endpoint", upstream.url, auth="x-api-key", model_map=names)
        assert await model_lists.refresh() == 1
        head = upstream.requests[0]

    assert head.startswith(b"GET /v1/models?limit=1000 HTTP/1.1\r\n")
    assert b"x-api-key: sk-endpoint\r\n" in head
    shown = (await relay.http.get("/v1/models", headers=relay.auth)).json()["data"]
    assert shown == [
        {
            "type": "model",
            "id": "opus-of-ours",
            "display_name": "opus-of-ours",
            "created_at": "2025-10-09T08:53:20Z",
        }
    ]
    assert [ability.id for ability in await sync_to_async(capabilities.of)(account.pk)] == [
        "glm-5.3"
    ]


async def test_an_endpoint_without_a_list_is_complained_of_once(
    relay: Relay, loopback: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with RawUpstream(_answer(b"404 Not Found", b"{}")) as upstream:
        await add(relay, "endpoint", upstream.url)
        with caplog.at_level(logging.WARNING, "relay.model_lists"):
            for _ in range(3):
                assert await model_lists.refresh() == 0

    assert len(caplog.records) == 1


def test_names_of_a_map_stand_beside_what_it_does_not_touch() -> None:
    listed = [{"id": name, "created_at": "2026-01-01"} for name in ("a", "b", "c")]

    offered = catalogue.offered(listed, {"x": "a", "c": "b", "y*": "b", "z": "unlisted"})

    assert [model["id"] for model in offered] == ["x", "c", "z"]
    assert catalogue.offered(listed, {}) == listed


@pytest.mark.parametrize("row", [row for row in ROWS if "H" in row.blames], ids=lambda row: row.id)
def test_an_upstream_of_one_account_alone_is_blamed_on_that_account(row: Any) -> None:
    """Whatever the facts are: the first row that holds is the one under test."""
    facts = FACTS[row.id]

    assert judge(facts) == row
    alone = judge(facts, alone=True)
    assert (alone.id, alone.blames) == (row.id, "A")
    assert alone.other == (row.id not in ("D06", "D25"))
    assert alone.charged == (row.id in ("D05", "D21", "D23/D21"))


FACTS = {
    "D01": Facts(failed=Failed.NOT_CONNECTED),
    "D05": Facts(failed=Failed.LOST),
    "D06": Facts(failed=Failed.TIMED_OUT),
    "D23/D22": Facts(status=200, event="overloaded_error"),
    "D23/D21": Facts(status=200, event="api_error"),
    "D25": Facts(status=200, malformed=True),
    "D13": Facts(status=503, is_json=False),
    "D22": Facts(status=529, is_json=True),
    "D21": Facts(status=500, is_json=True),
}
