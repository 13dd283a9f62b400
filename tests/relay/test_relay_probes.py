"""Once an hour one request tries a spent account: its limit may have been lifted early."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import health, pool
from accounts.models import Account
from events.models import Event
from lib import db
from relay import outcomes
from relay.ramp import ramp
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient
from tests.relay.things import ASK, BATCHES, asked, make_batch


async def _spend(relay: Relay, *names: str) -> None:
    """Let accounts meet their limit, and an hour pass."""
    for name in names:
        window = {"5h": {"status": "rejected", "utilization": 1.0, "reset": time.time() + 9000}}
        relay.simulator.limit(f"{name}@example.com", window)
        await relay.ask()
    await _pass_an_hour(relay)


async def _pass_an_hour(relay: Relay) -> None:
    await Account.objects.filter(status="rate_limited").aupdate(probe_at=timezone.now())
    pool.snapshot.invalidate()
    outcomes.reset()
    relay.simulator.clear_requests()


async def test_a_limit_that_was_lifted_early_is_found_out(relay: Relay) -> None:
    await relay.link("ada")
    await _spend(relay, "ada")
    relay.simulator.limit("ada@example.com", {"5h": None})

    answer = await relay.ask()
    await relay.running.idle()

    assert answer.status_code == 200
    ada = await relay.account("ada")
    assert (ada.status, ada.limited_until) == ("active", None)
    event = await Event.objects.filter(kind="account.recover").alast()
    assert event is not None
    assert event.by == "probe"


async def test_a_probe_that_fails_costs_its_client_nothing(relay: Relay) -> None:
    await relay.link("ada", "grace")
    await _spend(relay, "ada")

    answers = [await relay.ask(session=f"s{i}") for i in range(6)]

    assert {answer.status_code for answer in answers} == {200}
    assert relay.served().count("ada") == 1
    assert (await relay.account("ada")).status == "rate_limited"


async def test_before_the_hour_is_over_nobody_tries(relay: Relay) -> None:
    await relay.link("ada", "grace")
    await _spend(relay, "ada")
    await Account.objects.filter(status="rate_limited").aupdate(
        probe_at=timezone.now() + timedelta(minutes=59)
    )
    pool.snapshot.invalidate()

    for session in "abc":
        await relay.ask(session=session)

    assert "ada" not in relay.served()


async def test_of_many_that_ask_at_once_one_is_the_probe(relay: Relay) -> None:
    await relay.link("ada")
    await _spend(relay, "ada")

    answers = await asyncio.gather(*(relay.ask(session=f"s{i}") for i in range(20)))

    assert {answer.status_code for answer in answers} == {429}
    assert relay.served() == ["ada"]


async def test_a_probe_says_nothing_of_a_limit_that_came_after_it(relay: Relay) -> None:
    (ada,) = await relay.link("ada")
    await _spend(relay, "ada")
    known = (await relay.account("ada")).limited_until
    later = timezone.now() + timedelta(hours=5)

    await db.in_thread(health.limit, ada.pk, later, "limit_reached", observed_at=timezone.now())
    reopened = await db.in_thread(health.reopen, ada.pk, limited_until=known)

    assert not reopened
    assert (await relay.account("ada")).limited_until == later


async def test_two_processes_cannot_both_claim_it(relay: Relay) -> None:
    (ada,) = await relay.link("ada")
    await _spend(relay, "ada")
    now = timezone.now()

    claims = await asyncio.gather(
        *(db.in_thread(health.claim_probe, ada.pk, now=now) for _ in range(4))
    )

    assert sorted(claims) == [False] * 3 + [True]


async def test_what_is_made_is_no_probe(relay: Relay) -> None:
    await relay.link("ada")
    await _spend(relay, "ada")
    await relay.link("grace")
    pool.snapshot.invalidate()

    await make_batch(relay, headers=CLAUDE_CODE | relay.auth)
    await relay.ask()

    assert asked(relay, BATCHES, "POST") == ["grace"]
    assert "ada" in relay.served()


async def test_a_probe_whose_client_hangs_up_leaves_nothing_in_flight(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = threading.Event()

    def reopen_slowly(*_: Any, **__: Any) -> None:
        began.set()
        time.sleep(0.5)

    await relay.link("ada")
    await _spend(relay, "ada")
    relay.simulator.limit("ada@example.com", {"5h": None})
    monkeypatch.setattr(health, "reopen", reopen_slowly)
    body = json.dumps(ASK).encode()
    client = await RawClient.post(relay.url, "/v1/messages", CLAUDE_CODE | relay.auth, body)
    while not began.is_set():
        await asyncio.sleep(0.01)

    client.hang_up()
    await relay.running.idle()

    assert ramp.in_flight(relay.accounts["ada"].pk) == 0
