"""Once an hour one request tries a spent account: its limit may have been lifted early."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from accounts import health, pool
from accounts.models import Account
from accounts.pool import Member
from accounts.states import Kind, Status
from events.models import Event
from lib import db
from providers.base import Limits, Window
from relay import effects, outcomes, verdicts
from relay.facts import Facts
from relay.ramp import ramp
from sessions_limit import sticky
from sessions_limit.models import ClientKey
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


def _member(reason: str) -> Member:
    soon = timezone.now()
    limited = (Status.RATE_LIMITED, soon, soon, None)
    return Member(1, "ada", Kind.OAUTH, *limited, credential=uuid4(), secret="x", reason=reason)


OPEN = {"5h": "allowed", "7d": "allowed_warning"}


@pytest.mark.parametrize(
    ("status", "windows", "reason", "is_proof"),
    [
        (200, OPEN, "limit_reached (5h)", True),
        (200, {}, "billing", True),
        # Served as paid extra usage: the window itself is as spent as before.
        (200, OPEN | {"5h": "rejected"}, "limit_reached (5h)", False),
        # Refused for a family of models, and by the way the windows are open.
        (429, OPEN | {"7d_oi": "rejected"}, "limit_reached (5h)", True),
        (529, OPEN, "limit_reached (7d)", True),
        (400, OPEN, "limit_reached (7d)", True),
        (400, {"5h": "allowed"}, "limit_reached (7d)", False),
        (500, {}, "limit_reached (7d)", False),
        (429, OPEN | {"7d": "rejected"}, "limit_reached (5h)", False),
        # Open windows are no credit.
        (529, OPEN, "billing", False),
        (401, OPEN, "limit_reached (5h)", False),
    ],
)
def test_only_an_answer_that_shows_the_windows_open_is_a_proof(
    status: int, windows: dict[str, str], reason: str, is_proof: bool
) -> None:
    limits = Limits(windows=tuple(Window(name, told) for name, told in windows.items()))
    facts = Facts(status=status, limits=limits, is_json=True, has_id=True)

    row = verdicts.judge(facts)

    assert effects.proves_open(row, facts, _member(reason)) is is_proof


async def test_a_question_that_costs_no_quota_is_no_probe(relay: Relay) -> None:
    await relay.link("ada")
    await _spend(relay, "ada")
    path, headers = "/v1/messages/count_tokens", CLAUDE_CODE | relay.auth

    counted = await relay.http.post(path, content=json.dumps(ASK), headers=headers)

    assert counted.status_code == 429
    assert relay.simulator.requests() == []
    ada = await relay.account("ada")
    assert ada.status == "rate_limited"
    assert ada.probe_at is not None
    assert ada.probe_at <= timezone.now()


async def test_a_probe_that_is_refused_for_its_model_alone_proves_the_rest_open(
    relay: Relay,
) -> None:
    await relay.link("ada")
    await _spend(relay, "ada")
    windows = {"5h": None, "7d_opus": {"status": "rejected", "reset": time.time() + 9000}}
    relay.simulator.limit("ada@example.com", windows)

    refused = await relay.ask()
    served = await relay.ask(model="claude-sonnet-5")

    assert (refused.status_code, served.status_code) == (429, 200)
    assert (await relay.account("ada")).status == "active"


async def test_a_probe_that_fails_costs_its_client_nothing(relay: Relay) -> None:
    await relay.link("ada", "grace")
    await _spend(relay, "ada")

    answers = [await relay.ask(session=f"s{i}") for i in range(6)]

    assert {answer.status_code for answer in answers} == {200}
    assert relay.served().count("ada") == 1
    assert (await relay.account("ada")).status == "rate_limited"


async def test_a_session_with_an_account_of_its_own_is_no_probe(relay: Relay) -> None:
    await relay.link("ada", "grace", "joan")
    await _spend(relay, "ada")
    sticky.reset()
    await sticky.move(await _key(), "s", relay.accounts["joan"].pk)

    await relay.ask(session="s")
    assert relay.served() == ["joan"]
    # Another process does not remember whose the session is, but does not take it away either.
    sticky.reset()
    await relay.ask(session="s")
    await relay.ask(session="s")
    assert relay.served() == ["joan", "ada", "joan", "joan"]


async def _key() -> int:
    return (await ClientKey.objects.aget()).pk


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
