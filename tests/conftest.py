"""What all tests share: one simulator for the whole run, and a relay that speaks to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from asgiref.sync import sync_to_async
from django.core.management.commands import flush
from django.db import connections
from django.db.backends.postgresql.operations import DatabaseOperations

from proxy_project.web import WebServer, config
from tests.support.simulator import Simulator


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run what knows no database on one of them only: the other one cannot change it."""
    if os.environ.get("CAROUSEL_TEST_DATABASE") != "postgres" or config.args != config.getini(
        "testpaths"
    ):
        return
    kept = [item for item in items if _knows_a_database(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def _knows_a_database(item: pytest.Item) -> bool:
    fixtures = {"db", "transactional_db", "django_db_setup"}
    has_fixture = not fixtures.isdisjoint(getattr(item, "fixturenames", ()))
    return has_fixture or item.get_closest_marker("django_db") is not None


@pytest.fixture(scope="session")
def simulator_process() -> Iterator[Simulator]:
    """One process for the whole run."""
    with Simulator.start() as simulator:
        yield simulator


@pytest.fixture
def simulator(simulator_process: Simulator, settings: Any) -> Simulator:
    """The simulator without a memory, and the settings that lead to it."""
    simulator_process.reset()
    url = simulator_process.url
    settings.CONFIG = settings.CONFIG.model_copy(
        update={
            "upstream_base_url": url,
            "oauth_authorize_url": f"{url}/oauth/authorize",
            "oauth_token_url": f"{url}/v1/oauth/token",
        }
    )
    return simulator_process


@dataclass
class RunningRelay:
    """A relay that listens on loopback in the test's own loop."""

    url: str
    client: httpx2.AsyncClient
    server: WebServer

    async def idle(self) -> None:
        """Wait until every request is over for the relay too, its record included."""
        while self.server.server_state.tasks:
            await asyncio.sleep(0.005)


@pytest.fixture
async def running_relay(
    transactional_db: None, simulator: Simulator
) -> AsyncIterator[RunningRelay]:
    """Serve the whole application by the product's own server classes."""
    from proxy_project import asgi
    from relay import drain

    _forget_everything()
    listener = socket.create_server(("127.0.0.1", 0))
    server = WebServer(config(asgi.application), grace=0, seconds=1)
    server.config.load()
    serving = asyncio.create_task(server._serve(sockets=[listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
        await _started(server)
        yield RunningRelay(url, client, server)
    server.should_exit = server.force_exit = True
    await serving
    drain.reset()
    await _end_everything()


async def _started(server: WebServer) -> None:
    while not server.started:
        await asyncio.sleep(0.005)


def _forget_everything() -> None:
    from accounts import pool
    from relay import capabilities, catalogue, outcomes
    from sessions_limit import bans, budgets, keys, sessions, sticky, visits

    pool.snapshot.reset()
    keys.reset()
    bans.snapshot.reset()
    sessions.reset()
    visits.reset()
    budgets.reset()
    sticky.reset()
    outcomes.reset()
    catalogue.snapshot.reset()
    capabilities.snapshot.reset()
    capabilities.offers.reset()


async def _end_everything() -> None:
    """Leave nothing of this loop behind: no listener, no client, no thread with a connection."""
    from lib import db, redis
    from relay import closing

    await closing.close()
    with contextlib.closing(redis.for_jobs()) as client:
        client.flushdb()
    db.reset()
    # The thread of the asynchronous ORM keeps its connection, and PostgreSQL its database, open.
    await sync_to_async(connections.close_all)()


@pytest.fixture(scope="session", autouse=True)
def _quick_flush() -> Iterator[None]:
    """Empty the database between tests by plain DELETEs, and make no permission anew.

    PostgreSQL's TRUNCATE makes new files for every table and index, which takes longer than most
    tests; its constraints are deferred, so any order of deletion will do.
    """

    def sql_flush(self: DatabaseOperations, style: Any, tables: list[str], **_: Any) -> list[str]:
        return [f"DELETE FROM {self.quote_name(table)}" for table in tables]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush, "emit_post_migrate_signal", lambda *_, **__: None)
        patch.setattr(DatabaseOperations, "sql_flush", sql_flush)
        yield
