"""Calls that jobs make, and the events they leave, are counted for the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import UUID

import pytest
from django.db import transaction

from accounts import polling, profiles, tokens
from accounts.models import Account
from events import journal
from events.models import Event
from lib import counters
from tests.support.simulator import Simulator

TOKEN = {"path": "/v1/oauth/token"}
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _at_zero(account: Account) -> Iterator[None]:
    counters.deltas.reset()
    yield
    counters.deltas.reset()


def _renew(account: Account, seen: UUID) -> None:
    async def run() -> None:
        await tokens.renewed(account.pk, seen, rejected=True)
        await tokens.settled()

    asyncio.run(run())


def _counted(job: str) -> dict[str, float]:
    return {k[2]: n for k, n in counters.deltas._added.items() if k[:2] == ("job_calls", job)}


def test_refreshes_with_their_waits(
    account: Account, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "CONFIRM_SECONDS", 0.01)
    assert account.credential_id is not None
    simulator.script(TOKEN, status=500, body={})
    _renew(account, account.credential_id)
    waited = Event.objects.get(kind="account.refresh_failed").data["seconds"]
    Account.objects.filter(pk=account.pk).update(refresh_not_before=None, intent_credential=None)

    _renew(account, account.credential_id)
    account.refresh_from_db()
    simulator.script(TOKEN, status=400, body={"error": "invalid_grant"})
    _renew(account, account.credential_id)

    assert _counted("refresh") == {"later": 1, "succeeded": 1, "failed": 1}
    assert counters.deltas._added["backoff_seconds", "refresh"] == pytest.approx(waited, abs=0.1)
    assert counters.deltas._added["events", "account.refreshed"] == 1


def test_questions_for_usage_and_profile(account: Account, simulator: Simulator) -> None:
    Account.objects.filter(pk=account.pk).update(profile_checked_at=None)
    simulator.script({"path": "/api/oauth/profile"}, status=500, body={})
    simulator.script({"path": "/api/oauth/usage"}, status=429, body={})
    for _ in range(2):
        asyncio.run(profiles.check_due())
        asyncio.run(polling.poll_usage())
        Account.objects.filter(pk=account.pk).update(
            profile_not_before=None, usage_not_before=None, usage_checked_at=None
        )

    assert _counted("profile") == _counted("usage_poll") == {"later": 1, "succeeded": 1}
    assert counters.deltas._added["backoff_seconds", "usage_poll"] >= 1


def test_an_event_that_did_not_happen_is_not_counted() -> None:
    with transaction.atomic():
        journal.record("test.lost", "test:1")
        transaction.set_rollback(True)
    with transaction.atomic():
        journal.record("test.kept", "test:1")

    events = {key[1]: n for key, n in counters.deltas._added.items() if key[0] == "events"}
    assert events == {"test.kept": 1}
