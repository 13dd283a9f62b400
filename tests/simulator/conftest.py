"""One simulator process for this folder, brought back to its start state before each test."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from tests.simulator.wire import Api
from tests.support.simulator import Simulator

CLIENT_ID = "test-client"
REDIRECT = "https://platform.claude.com/oauth/code/callback"
SCOPES = "org:create_api_key user:inference user:profile user:sessions:claude_code"
VERIFIER = "v" * 43
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)


@pytest.fixture(scope="session")
def process() -> Iterator[Simulator]:
    with Simulator.start(accounts=3) as running:
        yield running


@pytest.fixture
def simulator(process: Simulator) -> Simulator:
    process.reset()
    return process


@pytest.fixture
def client(simulator: Simulator) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=simulator.url, trust_env=False, verify=False) as made:
        yield made


@pytest.fixture
def api(simulator: Simulator, client: httpx2.Client) -> Api:
    """The API with an inference-only token of Ada."""
    return Api(client, simulator.setup_token("ada@example.com"))


@pytest.fixture
def authorize_url(simulator: Simulator) -> Callable[..., str]:
    def build(**changes: str | None) -> str:
        params: dict[str, str | None] = {
            "code": "true",
            "client_id": CLIENT_ID,
            "response_type": "code",
            "redirect_uri": REDIRECT,
            "scope": SCOPES,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "state": "some-state",
            **changes,
        }
        present = {name: value for name, value in params.items() if value is not None}
        return f"{simulator.url}/oauth/authorize?{urlencode(present)}"

    return build


@pytest.fixture
def exchange(
    simulator: Simulator, client: httpx2.Client, authorize_url: Callable[..., str]
) -> Callable[..., httpx2.Response]:
    """Approve a login and exchange its code; keywords change the fields of the exchange."""

    def run(email: str = "ada@example.com", **changes: Any) -> httpx2.Response:
        code, _, state = simulator.authorize(authorize_url(), email).partition("#")
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "state": state,
            "client_id": CLIENT_ID,
            "redirect_uri": REDIRECT,
            "code_verifier": VERIFIER,
            **changes,
        }
        return client.post("/v1/oauth/token", json=fields)

    return run


@pytest.fixture
def refresh(client: httpx2.Client) -> Callable[..., httpx2.Response]:
    def run(token: str, **more: Any) -> httpx2.Response:
        fields = {"grant_type": "refresh_token", "refresh_token": token, "client_id": CLIENT_ID}
        return client.post("/v1/oauth/token", json={**fields, **more})

    return run
