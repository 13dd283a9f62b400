"""A simulator as upstream, an empty Valkey, and accounts linked the way an operator links them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from accounts import linking
from accounts.models import Account
from lib import db
from lib.redis import for_jobs
from tests.support.simulator import Simulator

SESSION = "operator's session"

if connection.vendor == "sqlite":
    # No power cut is tested; waiting for the disk after each write would double the run.
    options = connection.settings_dict["OPTIONS"]
    options["init_command"] = options["init_command"].replace("FULL", "OFF")


@pytest.fixture(autouse=True)
def _speaks_to_the_simulator_alone(simulator: Simulator) -> None:
    """No test of this folder may reach the real endpoints."""


@pytest.fixture(autouse=True)
def _empty_valkey() -> None:
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()


@pytest.fixture(autouse=True)
def _ends_database_threads() -> Iterator[None]:
    yield
    db.reset()


@pytest.fixture
def link(simulator: Simulator) -> Callable[..., Account]:
    def link_one(email: str = "ada@example.com", name: str = "") -> Account:
        simulator.person(email)
        flow = linking.begin(by="ada", session=SESSION)
        pasted = simulator.authorize(flow.url, email)
        linking.complete(flow.id, pasted, session=SESSION)
        return linking.confirm(flow.id, session=SESSION, by="ada", name=name)

    return link_one


@pytest.fixture
def account(link: Callable[..., Account], transactional_db: None) -> Account:
    return link()
