"""A caller of the admin API with a token, accounts at the simulator, and an empty Valkey."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from accounts import adding
from accounts.models import Account
from accounts.states import Kind
from lib import db
from lib.redis import for_jobs
from proxy_project import tokens
from tests.support.simulator import Simulator

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def _speaks_to_the_simulator_alone(simulator: Simulator) -> None:
    """No test of this folder may reach the real endpoints."""


@pytest.fixture(autouse=True)
def _empty_valkey() -> None:
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()


@pytest.fixture(autouse=True)
def _forgets_guesses() -> None:
    tokens._unknown.clear()


@pytest.fixture(autouse=True)
def _ends_database_threads() -> Iterator[None]:
    yield
    db.reset()


@pytest.fixture
def token(db: None) -> str:
    return tokens.create("deploy", by="ada")[1]


@pytest.fixture
def call(token: str) -> Call:
    """Call the API: `call("PATCH", "/accounts/1", {...})` returns the answer with its `body`."""
    client = Client(headers={"authorization": f"Bearer {token}"}, enforce_csrf_checks=True)

    def one(method: str, path: str, body: Any = None, **headers: str) -> Any:
        data = "" if body is None else json.dumps(body)
        answer = client.generic(
            method, f"/api{path}", data, content_type="application/json", headers=headers
        )
        answer.body = json.loads(answer.content) if answer.content else None
        return answer

    return one


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create(username="ada", is_staff=True)


@pytest.fixture
def account(db: None, simulator: Simulator) -> Account:
    return adding.add_secret(Kind.API_KEY, "console", simulator.api_key("console"), "ada")
