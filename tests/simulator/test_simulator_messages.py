"""Messages: who may send them, what comes back, what it is said to cost."""

from __future__ import annotations

import gzip
import json

import httpx2
import pytest

from tests.simulator.wire import Api, events_of, text_of
from tests.support.simulator import Simulator

ADA = "ada@example.com"
BASH = {"name": "Bash", "description": "Run", "input_schema": {"type": "object"}}


def test_a_stream_has_the_order_of_the_real_one(api: Api) -> None:
    events = events_of(api.ask(stream=True))

    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[3:-3] == ["content_block_delta"] * 5
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[0]["message"]["usage"]["output_tokens"] == 1
    assert events[-2]["usage"]["output_tokens"] > 1
    assert events[-2]["usage"]["input_tokens"] == events[0]["message"]["usage"]["input_tokens"]


def test_the_reply_counts_the_messages(api: Api) -> None:
    answer = api.ask()

    assert answer.json()["content"] == [
        {"type": "text", "text": "Hello from the simulator. You sent 1 messages."}
    ]


def test_the_reply_can_be_asked_for(api: Api) -> None:
    assert text_of(api.ask("please\nreply: grün & fine", stream=True)) == "grün & fine"


def test_the_serving_account_is_told_only_to_whoami(api: Api) -> None:
    assert ADA in api.ask("whoami").text
    assert ADA not in api.ask("hello").text


def test_a_bash_line_becomes_a_tool_call_and_its_result_comes_back(api: Api) -> None:
    asked = api.ask("bash: echo hi", stream=True, tools=[BASH])
    events = events_of(asked)
    parts = [event["delta"].get("partial_json", "") for event in events if "delta" in event]

    assert json.loads("".join(parts))["command"] == "echo hi"
    assert events[-2]["delta"]["stop_reason"] == "tool_use"

    result = {"type": "tool_result", "tool_use_id": "t", "content": "hi there"}
    told = api.ask(messages=[{"role": "user", "content": [result]}])
    assert told.json()["content"][0]["text"] == "The tool said: hi there"


def test_a_think_line_gets_a_signed_thinking_block_first(api: Api) -> None:
    thinking = {"type": "adaptive", "display": "omitted"}

    thought = api.ask("think\nreply: done", thinking=thinking).json()["content"]
    plain = api.ask("think\nreply: done").json()["content"]

    assert [block["type"] for block in thought] == ["thinking", "text"]
    assert thought[0]["signature"]
    assert [block["type"] for block in plain] == ["text"]


def test_a_prefix_is_written_to_the_cache_once_and_then_read(api: Api) -> None:
    system = [{"type": "text", "text": "x" * 4000, "cache_control": {"type": "ephemeral"}}]

    first = api.ask(system=system).json()["usage"]
    second = api.ask(system=system).json()["usage"]

    assert first["cache_creation"]["ephemeral_5m_input_tokens"] > 500
    assert first["cache_read_input_tokens"] == 0
    assert second["cache_creation_input_tokens"] == 0
    assert second["cache_read_input_tokens"] > 500


def test_every_answer_carries_the_headers_of_the_real_one(simulator: Simulator, api: Api) -> None:
    headers = api.ask().headers

    assert headers["request-id"].startswith("req_")
    ada = simulator.accounts()[ADA]
    assert headers["anthropic-organization-id"] == ada["organization_uuid"]
    assert {"set-cookie", "cf-ray"} <= set(headers)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"anthropic-version": ""}, 400, "anthropic-version: header is required"),
        ({"anthropic-beta": "x"}, 401, "OAuth authentication is currently not supported."),
        ({"authorization": ""}, 401, "x-api-key header is required"),
        ({"authorization": "Bearer nonsense"}, 401, "Invalid bearer token"),
        ({"x-api-key": "nonsense"}, 401, "invalid x-api-key"),
    ],
)
def test_a_request_without_the_right_headers_is_refused(
    api: Api, change: dict[str, str], status: int, message: str
) -> None:
    body = {"model": "claude-x", "messages": [{"role": "user", "content": "hi"}]}

    answer = api.client.post("/v1/messages", json=body, headers=api.headers() | change)

    assert answer.status_code == status
    assert answer.json()["error"]["message"] == message
    assert answer.json()["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"not json", 400),
        (b"[]", 400),
        (b'{"messages": [{"role": "user", "content": "hi"}]}', 400),
        (b'{"model": "claude-x"}', 400),
        (b'{"model": "claude-x", "messages": []}', 400),
        (b'{"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}', 404),
    ],
)
def test_a_malformed_request_is_refused(api: Api, body: bytes, status: int) -> None:
    answer = api.client.post("/v1/messages", content=body, headers=api.headers())

    assert answer.status_code == status


def test_a_body_over_32_mib_is_too_large(simulator: Simulator, api: Api) -> None:
    body = b"x" * (32 * 1024 * 1024 + 1)

    answer = api.client.post("/v1/messages", content=body, headers=api.headers())

    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "request_too_large"
    simulator.clear_requests()


def test_expired_and_revoked_tokens_are_told_apart(simulator: Simulator, api: Api) -> None:
    simulator.expire_access(ADA)
    expired = api.ask()
    simulator.revoke_grant(ADA)
    revoked = api.ask()

    assert (expired.status_code, revoked.status_code) == (401, 401)
    assert "OAuth token has expired" in expired.text
    assert "OAuth token has been revoked" in revoked.text


def test_an_api_key_works_in_both_headers_and_needs_no_beta(
    simulator: Simulator, client: httpx2.Client
) -> None:
    key = simulator.api_key("spare")
    body = {"model": "claude-x", "messages": [{"role": "user", "content": "hi"}]}

    for header in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
        headers = {"anthropic-version": "2023-06-01", **header}
        answer = client.post("/v1/messages", json=body, headers=headers)
        assert answer.status_code == 200
        assert "anthropic-ratelimit-requests-limit" in answer.headers
        assert "anthropic-ratelimit-unified-status" not in answer.headers


def test_a_strict_account_serves_claude_code_only(simulator: Simulator, api: Api) -> None:
    simulator.person(ADA, claude_code_only=True)
    body = {"model": "claude-x", "messages": [{"role": "user", "content": "hi"}]}
    cli = {"user-agent": "claude-cli/2.1.328 (external, cli)"}

    other = api.ask()
    genuine = api.client.post("/v1/messages", json=body, headers=api.headers() | cli)

    assert other.status_code == 400
    assert "only authorized for use with Claude Code" in other.text
    assert genuine.status_code == 200


def test_tokens_are_counted_without_rate_limit_headers(api: Api) -> None:
    body = {"model": "claude-x", "messages": [{"role": "user", "content": "hi"}]}

    answer = api.client.post("/v1/messages/count_tokens", json=body, headers=api.headers())

    assert answer.json()["input_tokens"] > 0
    assert not [name for name in answer.headers if name.startswith("anthropic-ratelimit")]


def test_a_compressed_body_is_understood(api: Api) -> None:
    body = json.dumps({"model": "claude-x", "messages": [{"role": "user", "content": "hi"}]})
    headers = api.headers() | {"content-encoding": "gzip", "content-type": "application/json"}

    answer = api.client.post("/v1/messages", content=gzip.compress(body.encode()), headers=headers)

    assert answer.status_code == 200
