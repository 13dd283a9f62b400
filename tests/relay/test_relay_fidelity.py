"""What a client sends arrives upstream as it was; what it may not see stays behind."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.relay.conftest import CLAUDE_CODE, Relay

CAPTURES = Path(__file__).parent / "captures"


def _names(request: dict[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in request["headers"]}


@pytest.mark.parametrize("name", sorted(path.stem for path in CAPTURES.glob("*.json")))
async def test_a_captured_body_of_a_real_client_arrives_unchanged(relay: Relay, name: str) -> None:
    await relay.link("ada")
    body = (CAPTURES / f"{name}.json").read_bytes()

    await relay.http.post("/v1/messages?beta=true", content=body, headers=CLAUDE_CODE | relay.auth)

    sent = relay.simulator.requests(path="/v1/messages")[0]
    assert sent["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert sent["target"] == "/v1/messages?beta=true"


@pytest.mark.parametrize(
    "body",
    [
        b'{ "model" : "claude-opus-5-5",\n\t"messages":[{"role":"user","content":"x"}],"a":1e9 }',
        '{"model":"claude-opus-5-5","messages":[{"role":"user","content":"\u00e9\U0001f600"}]}'.encode(),
        b'{"messages":[{"role":"user","content":"\\ud83d\\ude00"}],"model":"claude-opus-5-5","n":{}}',
        b'{"model":"other","model":"claude-opus-5-5","messages":[{"role":"system","content":"s"}]}',
    ],
)
async def test_an_odd_body_arrives_byte_for_byte(relay: Relay, body: bytes) -> None:
    await relay.link("ada")

    await relay.http.post("/v1/messages", content=body, headers=CLAUDE_CODE | relay.auth)

    sent = relay.simulator.requests(path="/v1/messages")[0]
    assert base64.b64decode(sent["body_b64"]) == body


@pytest.mark.parametrize("query", ["", "?beta=true", "?beta=true&x=%2F%20+&y=;z", "?a=b?c"])
async def test_the_query_is_passed_as_it_is(relay: Relay, query: str) -> None:
    await relay.link("ada")
    body = {"model": "claude-opus-5-5", "messages": [{"role": "user", "content": "x"}]}

    await relay.http.post(
        relay.url + "/v1/messages" + query, content=json.dumps(body), headers=relay.auth
    )

    assert relay.simulator.requests()[-1]["target"] == "/v1/messages" + query


async def test_open_header_families_pass_and_nothing_else_does(relay: Relay) -> None:
    await relay.link("ada")
    passing = {
        "anthropic-beta": "a-1,b-2",
        "anthropic-version": "2026-10-21",
        "anthropic-something-new": "x",
        "x-stainless-lang": "js",
        "x-claude-code-agent-id": "abc",
        "x-app": "cli",
        "accept-language": "*",
        "user-agent": "claude-cli/2.1.328 (external, sdk-cli)",
    }
    staying = {
        "cookie": "a=b",
        "x-forwarded-for": "1.2.3.4",
        "sec-fetch-mode": "cors",
        "x-custom": "y",
        "referer": "http://x/",
        "proxy-authorization": "Basic x",
    }

    await relay.ask(headers=passing | staying)

    sent = _names(relay.simulator.requests(path="/v1/messages")[0])
    assert {name: sent.get(name) for name in passing if name != "anthropic-beta"} == {
        name: value for name, value in passing.items() if name != "anthropic-beta"
    }
    assert sent["anthropic-beta"] == "a-1,b-2,oauth-2025-04-20"
    assert sent["accept-encoding"] == "identity"
    assert not set(staying) & set(sent)


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        (None, "oauth-2025-04-20"),
        ("oauth-2025-04-20", "oauth-2025-04-20"),
        ("x, oauth-2025-04-20 ,y", "x, oauth-2025-04-20 ,y"),
        ("x,x, y", "x,x, y,oauth-2025-04-20"),
    ],
)
async def test_the_betas_of_the_client_are_kept_and_the_one_for_bearer_tokens_is_added(
    relay: Relay, sent: str | None, arrives: str
) -> None:
    await relay.link("ada")

    await relay.ask(headers={"anthropic-beta": sent} if sent else {})

    assert _names(relay.simulator.requests(path="/v1/messages")[0])["anthropic-beta"] == arrives


async def test_an_api_key_account_gets_the_betas_of_the_client_only(relay: Relay) -> None:
    await relay.add_api_key("console")

    await relay.ask(headers={"anthropic-beta": "x-1"})

    sent = _names(relay.simulator.requests(path="/v1/messages")[0])
    assert sent["anthropic-beta"] == "x-1"
    assert "authorization" not in sent
    assert sent["x-api-key"].startswith("sk-ant-")


async def test_a_missing_version_is_the_only_thing_that_is_added(relay: Relay) -> None:
    await relay.link("ada")
    body = {"model": "claude-opus-5-5", "messages": [{"role": "user", "content": "x"}]}
    key = {"x-api-key": relay.key, "user-agent": "curl/8"}

    answer = await relay.http.post("/v1/messages", json=body, headers=key)

    assert answer.status_code == 200
    sent = _names(relay.simulator.requests(path="/v1/messages")[0])
    assert sent["anthropic-version"] == "2023-06-01"
    assert sent["user-agent"] == "curl/8"


async def test_what_speaks_of_the_account_is_kept_from_the_client(relay: Relay) -> None:
    await relay.link("ada")

    answer = await relay.ask()

    names = {name.lower() for name in answer.headers}
    assert {"request-id", "content-type", "x-relay-request-id"} <= names
    assert not [
        name
        for name in names
        if name.startswith(("anthropic-", "cf-", "set-cookie", "server", "traceresponse"))
    ]


async def test_retry_hints_of_the_upstream_pass(relay: Relay) -> None:
    await relay.link("ada")
    hints = {"x-should-retry": "true", "retry-after": "7"}
    relay.simulator.script(times=None, status=529, headers=hints)

    answer = await relay.ask()

    assert {name: answer.headers[name] for name in hints} == hints


async def test_count_tokens_is_relayed(relay: Relay) -> None:
    await relay.link("ada")
    body = (CAPTURES / "cc-2.1.328-count-tokens.json").read_bytes()
    headers = CLAUDE_CODE | relay.auth

    counted = await relay.http.post(
        "/v1/messages/count_tokens?beta=true", content=body, headers=headers
    )

    assert counted.json()["input_tokens"] > 0
    assert relay.simulator.requests()[-1]["target"] == "/v1/messages/count_tokens?beta=true"
