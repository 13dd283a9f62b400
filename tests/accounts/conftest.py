"""A simulator as upstream, an empty Valkey, and accounts linked the way an operator links them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from django.conf import LazySettings
from django.conf import settings as django_settings
from django.db import connection

from accounts import linking
from accounts.models import Account
from lib import db
from lib.redis import for_jobs
from tests.support.simulator import Simulator

SESSION = "operator's session"

# In memory, SQLite's connections share one cache, and its locks do not wait; a file is what runs.
if connection.vendor == "sqlite":
    connection.settings_dict["TEST"]["NAME"] = str(django_settings.CONFIG.data_dir / "test.sqlite3")
    # No power cut is tested; waiting for the disk after each write would double the run.
    options = connection.settings_dict["OPTIONS"]
    options["init_command"] = options["init_command"].replace("FULL", "OFF")


@pytest.fixture(scope="session")
def upstream() -> Iterator[Simulator]:
    with Simulator.start() as running:
        yield running


@pytest.fixture
def simulator(upstream: Simulator) -> Simulator:
    upstream.reset()
    return upstream


@pytest.fixture(autouse=True)
def _points_at_the_simulator(simulator: Simulator, settings: LazySettings) -> None:
    addresses = {
        "upstream_base_url": simulator.url,
        "oauth_authorize_url": f"{simulator.url}/oauth/authorize",
        "oauth_token_url": f"{simulator.url}/v1/oauth/token",
    }
    settings.CONFIG = settings.CONFIG.model_copy(update=addresses)


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
