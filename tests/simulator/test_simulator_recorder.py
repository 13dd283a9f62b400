"""The recorder: what arrived, byte for byte, and how it ended."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.simulator.wire import Api
from tests.support.simulator import Simulator

ADA = "ada@example.com"
BODY = b'{"model":"claude-x","stream":true,"messages":[{"role":"user","content":"hi"}]}'


def connect(simulator: Simulator) -> socket.socket:
    parts = urlsplit(simulator.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5)


def request_bytes(token: str, target: str = "/v1/messages") -> bytes:
    lines = [
        f"POST {target} HTTP/1.1",
        "host: x",
        "X-Odd-CASE: Yes",
        f"AUTHORIZATION: Bearer {token}",
        "anthropic-beta: oauth-2025-04-20",
        "anthropic-version: 2023-06-01",
        f"content-length: {len(BODY)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + BODY


def wait_for_arrival(simulator: Simulator) -> None:
    for _ in range(200):
        if simulator.accounts()[ADA]["in_flight"] == 1:
            return
        time.sleep(0.01)
    raise AssertionError("the request did not arrive")


def wait_for_end(simulator: Simulator) -> dict[str, Any]:
    for _ in range(200):
        entry = simulator.requests()[0]
        if entry["ended"]:
            return entry
        time.sleep(0.01)
    raise AssertionError("the exchange did not end")


def test_a_request_is_kept_as_it_arrived(simulator: Simulator, api: Api) -> None:
    with connect(simulator) as raw:
        raw.sendall(request_bytes(api.token, "/v1/messages?beta=true&x=%7e//"))
        raw.recv(100)

    entry = wait_for_end(simulator)

    assert entry["target"] == "/v1/messages?beta=true&x=%7e//"
    assert entry["http_version"] == "HTTP/1.1"
    assert entry["headers"][1] == ["X-Odd-CASE", "Yes"]
    assert entry["headers"][2][0] == "AUTHORIZATION"
    assert base64.b64decode(entry["body_b64"]) == BODY
    assert entry["body_sha256"] == hashlib.sha256(BODY).hexdigest()
    assert (entry["account"], entry["credential_kind"]) == (ADA, "setup_token")
    assert (entry["status"], entry["violations"]) == (200, [])


@pytest.mark.parametrize(
    "action",
    [
        {"stall_after": 100},
        {"delay": 30},
        {"first_byte_delay": 30},
        {"pace": 30},
    ],
)
def test_a_client_that_goes_away_is_noticed_at_once(
    simulator: Simulator, api: Api, action: dict[str, Any]
) -> None:
    simulator.script({}, **action)
    raw = connect(simulator)
    raw.sendall(request_bytes(api.token))
    wait_for_arrival(simulator)
    left_at = time.time()
    raw.close()

    entry = wait_for_end(simulator)

    assert entry["ended"] == "client_gone"
    assert 0 <= entry["ended_at"] - left_at < 0.25
    assert simulator.accounts()[ADA]["in_flight"] == 0


def test_a_client_that_never_reads_is_noticed_when_it_goes(simulator: Simulator, api: Api) -> None:
    simulator.script({}, text="x" * 20_000_000)
    raw = connect(simulator)
    raw.sendall(request_bytes(api.token))
    time.sleep(0.1)
    left_at = time.time()
    raw.close()

    entry = wait_for_end(simulator)

    assert entry["ended"] == "client_gone"
    assert entry["ended_at"] - left_at < 0.5


def test_a_client_that_leaves_while_sending_is_recorded(simulator: Simulator, api: Api) -> None:
    with connect(simulator) as raw:
        raw.sendall(request_bytes(api.token)[:-10])
        time.sleep(0.05)

    entry = wait_for_end(simulator)

    assert entry["ended"] == "client_gone"
    assert entry["body_bytes"] == len(BODY) - 10


def test_two_credentials_in_one_request_are_a_violation(simulator: Simulator, api: Api) -> None:
    key = simulator.api_key("spare")
    body = {"model": "claude-x", "messages": [{"role": "user", "content": "hi"}]}

    api.client.post("/v1/messages", json=body, headers=api.headers(**{"x-api-key": key}))

    entry = simulator.requests()[0]
    assert entry["violations"] == ["both credentials"]
    assert (entry["account"], entry["credential_kind"]) == ("spare", "api_key")


def test_a_text_is_found_wherever_it_was_sent(simulator: Simulator, api: Api) -> None:
    api.ask("a needle in the body")
    api.client.get("/v1/models?x=needle", headers=api.headers())
    api.client.get("/v1/models", headers=api.headers(**{"x-needle": "1"}))

    assert simulator.seen("needle") == 3
    assert simulator.seen("haystack") == 0


def test_requests_are_filtered_by_path_and_account(simulator: Simulator, api: Api) -> None:
    api.ask()
    api.client.get("/v1/models", headers=api.headers())
    api.client.get("/nowhere")

    assert len(simulator.requests(path="/v1/messages")) == 1
    assert len(simulator.requests(account=ADA)) == 2
    assert simulator.requests(path="/nowhere")[0]["status"] == 404

    simulator.clear_requests()
    assert simulator.requests() == []


def test_a_probe_with_head_gets_a_head_and_no_body(simulator: Simulator, api: Api) -> None:
    answers = [api.client.head("/api/hello") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert [entry["ended"] for entry in simulator.requests()] == ["complete"] * 2


def test_a_client_of_http_1_0_gets_a_body_that_ends_with_the_connection(
    simulator: Simulator, api: Api
) -> None:
    with connect(simulator) as raw:
        raw.sendall(request_bytes(api.token).replace(b"HTTP/1.1", b"HTTP/1.0"))
        got = b"".join(iter(lambda: raw.recv(65536), b""))

    assert b"chunked" not in got.lower()
    assert got.endswith(b'{"type":"message_stop"}\n\n')
    assert wait_for_end(simulator)["http_version"] == "HTTP/1.0"


def test_many_requests_at_once_are_all_counted(simulator: Simulator, api: Api) -> None:
    threads = [threading.Thread(target=api.ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert simulator.accounts()[ADA]["served"] == 20


def test_a_reset_may_keep_the_people(simulator: Simulator) -> None:
    simulator.person("new@example.com")
    before = simulator.accounts()

    simulator.reset(keep_accounts=True)
    assert simulator.accounts() == before

    simulator.reset()
    assert "new@example.com" not in simulator.accounts()
