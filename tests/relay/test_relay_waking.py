"""An idle account returns for a request that finds no other, if the operator wants that (S10)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import pool, tokens
from accounts.models import Account, Credential
from events.models import Event
from tests.relay.conftest import Relay


@pytest.fixture
def wakes(simulator: Any, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CONFIRM_SECONDS", 0.05)
    settings.CONFIG = settings.CONFIG.model_copy(update={"wake_idle": True})


async def _set_aside(relay: Relay, reason: str, *names: str) -> None:
    ids = [relay.accounts[name].pk for name in names]
    await Account.objects.filter(pk__in=ids).aupdate(status="inactive", reason=reason)
    pool.snapshot.invalidate()


async def _end_tokens() -> None:
    past = timezone.now() - timedelta(hours=1)
    await Credential.objects.aupdate(expires_at=past)
    pool.snapshot.invalidate()


async def _states(relay: Relay) -> dict[str, tuple[str, str]]:
    rows = [await relay.account(name) for name in relay.accounts]
    return {row.name: (row.status, row.reason) for row in rows}


async def test_nobody_is_woken_unless_it_is_wanted(relay: Relay) -> None:
    await relay.link("ada")
    await _set_aside(relay, "idle", "ada")

    answer = await relay.ask()

    assert answer.status_code == 503
    assert await _states(relay) == {"ada": ("inactive", "idle")}


async def test_of_many_requests_at_once_all_are_served_by_one_that_is_woken(
    relay: Relay, wakes: None
) -> None:
    await relay.link("ada", "grace")
    await _set_aside(relay, "idle", "ada", "grace")
    await _end_tokens()

    answers = await asyncio.gather(*(relay.ask(session=f"s{i}") for i in range(8)))

    assert {answer.status_code for answer in answers} == {200}
    assert await _states(relay) == {"ada": ("active", ""), "grace": ("inactive", "idle")}
    assert relay.simulator.token_ledger()["refreshes"] == 1
    assert await Event.objects.filter(kind="account.wake").acount() == 1


async def test_a_dead_one_is_found_out_and_the_next_is_woken(relay: Relay, wakes: None) -> None:
    await relay.link("ada", "grace")
    await _set_aside(relay, "idle", "ada", "grace")
    await _end_tokens()
    relay.simulator.revoke_grant("ada@example.com")

    answer = await relay.ask()

    assert answer.status_code == 200
    assert await _states(relay) == {
        "ada": ("invalid", "refresh_rejected"),
        "grace": ("active", ""),
    }


async def test_what_an_operator_holds_back_stays_and_what_serves_is_enough(
    relay: Relay, wakes: None
) -> None:
    await relay.link("ada", "grace", "idle")
    await _set_aside(relay, "admin", "ada")
    await _set_aside(relay, "restored", "grace")
    await _set_aside(relay, "idle", "idle")
    relay.simulator.script({"path": "/v1/oauth/token"}, times=None, status=503, body={})
    await _end_tokens()

    refused = await relay.ask()
    again = await relay.ask()

    assert {refused.status_code, again.status_code} == {503}
    assert await _states(relay) == {
        "ada": ("inactive", "admin"),
        "grace": ("inactive", "restored"),
        "idle": ("inactive", "idle"),
    }
