"""The database is locked, full or away: streams run on, requests are served, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.utils import timezone

from accounts import pool, tokens
from accounts.models import Account, Credential
from tests.faults.conftest import Work, streams_running
from tests.support import databases

REAL_NOW = timezone.now
TOKEN = {"path": "/v1/oauth/token"}
needs_postgres = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite is no server")


@asynccontextmanager
async def during(fault: AbstractContextManager[None]) -> AsyncIterator[None]:
    """Run a block while the database has a fault."""
    await sync_to_async(fault.__enter__, thread_sensitive=False)()
    try:
        yield
    finally:
        await sync_to_async(fault.__exit__, thread_sensitive=False)(None, None, None)


@contextlib.contextmanager
def refusing() -> contextlib.Generator[None]:
    databases.refuse()
    try:
        yield
    finally:
        databases.accept()


async def becomes(work: Work, name: str, status: str, within: float = 15.0) -> None:
    async with asyncio.timeout(within):
        while (await work.relay.account(name)).status != status:
            await asyncio.sleep(0.05)


async def end_token(work: Work, name: str) -> None:
    """Let the access token of an account have ended a moment ago."""
    account = await work.relay.account(name)
    ended = timezone.now() - timedelta(seconds=1)
    await Credential.objects.filter(pk=account.credential_id).aupdate(expires_at=ended)
    pool.snapshot.invalidate()
    await pool.snapshot.get()


async def has_been_renewed_once(work: Work, name: str, within: float = 15.0) -> None:
    """The rotated token is stored, was asked for once, and serves."""
    async with asyncio.timeout(within):
        while await Credential.objects.filter(account=work.relay.accounts[name]).acount() < 2:
            await asyncio.sleep(0.05)
    await tokens.settled()
    newest = await Account.objects.select_related("credential").aget(name=name)
    assert newest.credential is not None
    assert (newest.status, newest.credential.generation) == ("active", 2)
    ledger = work.relay.simulator.token_ledger()
    assert ledger["refreshes"] == 1
    assert "reused" not in [call["outcome"] for call in ledger["calls"]]


@pytest.mark.parametrize("seconds", [3.5, pytest.param(10, marks=pytest.mark.slow)])
async def test_a_locked_database_delays_nobody_and_no_state_is_forgotten(
    work: Work, seconds: float
) -> None:
    async with streams_running(work, seconds + 1):
        async with during(databases.locked()):
            await work.keep_asking(0.3)
            work.relay.simulator.limit("ada@example.com", {"5h": {"status": "rejected"}})
            await work.keep_asking(seconds)
        await work.keep_asking(0.3)

    await becomes(work, "ada", "rate_limited")
    work.was_never_held_up()
    await work.is_recorded_once()


@pytest.mark.slow
async def test_a_token_that_the_database_does_not_take_is_kept_and_others_serve(
    work: Work,
) -> None:
    await end_token(work, "ada")
    async with streams_running(work, 5), during(refusing()):
        await work.keep_asking(4)

    await has_been_renewed_once(work, "ada")
    work.was_never_held_up()
    await work.is_recorded_once()


async def test_a_token_that_comes_into_a_locked_database_is_stored_afterwards(work: Work) -> None:
    work.relay.simulator.script(TOKEN, delay=0.5)
    await end_token(work, "ada")
    asking = asyncio.create_task(work.keep_asking(4))
    await asyncio.sleep(0.25)

    async with during(databases.locked()):
        await asking

    await has_been_renewed_once(work, "ada")
    work.was_never_held_up()
    await work.is_recorded_once()


@pytest.fixture
def _closes_what_was_cut(work: Work) -> Iterator[None]:
    yield
    connections.close_all()


@needs_postgres
@pytest.mark.usefixtures("_closes_what_was_cut")
async def test_a_database_that_restarts_breaks_nothing(work: Work) -> None:
    async with streams_running(work, 4):
        async with during(databases.away()):
            await work.keep_asking(2)
            work.relay.simulator.limit("ada@example.com", {"5h": {"status": "rejected"}})
            await work.keep_asking(0.5)
        # The test's own connection was cut as well.
        await sync_to_async(connections.close_all)()
        await work.keep_asking(0.5)

    await becomes(work, "ada", "rate_limited")
    work.was_never_held_up()
    await work.is_recorded_once()


@pytest.mark.parametrize("hours", [9, -9])
async def test_a_clock_that_is_set_breaks_nothing(
    work: Work, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    step = timedelta(hours=hours)
    async with streams_running(work, 1):
        monkeypatch.setattr(timezone, "now", lambda: datetime.now(UTC) + step)
        await work.keep_asking(0.5)
        work.relay.simulator.limit("ada@example.com", {"5h": {"status": "rejected"}})
        await work.keep_asking(0.3)
        monkeypatch.setattr(timezone, "now", REAL_NOW)
        await work.keep_asking(0.3)

    await becomes(work, "ada", "rate_limited")
    assert (await work.relay.account("grace")).status == "active"
    work.was_never_held_up()
    await work.is_recorded_once()
