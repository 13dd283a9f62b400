"""A rotated pair that the database does not take: kept, parked, committed later, never dropped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts import lifecycle, parking, tokens
from accounts.models import Account, Credential
from accounts.renewal import Outcome, Renewal
from events.models import Event
from lib.db import in_thread
from lib.redis import for_jobs
from tests.support.databases import accept, refuse
from tests.support.simulator import Simulator

pytestmark = pytest.mark.django_db(transaction=True)


def parked() -> dict[str, str]:
    with contextlib.closing(for_jobs()) as client:
        return dict(client.hgetall(parking.HASH))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _ends_refusing(transactional_db: None) -> Iterator[None]:
    yield
    accept()


async def give_up(account: Account) -> Renewal:
    """Refresh into a database that refuses, until the pair lies in Redis alone."""
    assert account.credential_id is not None
    renewal = await tokens.renewed(account.pk, account.credential_id, rejected=True)
    await tokens.settled()
    return renewal


def test_the_pair_is_kept_and_committed_when_the_database_is_back(
    account: Account, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "WAIT_SECONDS", 0.3)
    seen = account.credential_id
    assert seen is not None

    async def outage() -> Renewal:
        await in_thread(refuse)
        renewal = await tokens.renewed(account.pk, seen)
        async with asyncio.timeout(10):
            while not await in_thread(parked):
                await asyncio.sleep(0.02)
        await in_thread(accept)
        await tokens.settled()
        return renewal

    renewal = asyncio.run(outage())

    account.refresh_from_db()
    assert renewal.outcome is Outcome.TRY_LATER
    assert account.credential_id != seen
    assert (account.intent_credential, parked()) == (None, {})
    assert simulator.token_ledger()["refreshes"] == 1
    assert Event.objects.get(kind="account.refreshed").data == {"late": True}


@pytest.mark.parametrize("way", ["on demand", "by beat"])
def test_a_parked_pair_is_committed_by_whoever_comes_next(
    account: Account, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(tokens, "KEEP_SECONDS", 0.0)
    refuse()
    assert asyncio.run(give_up(account)).outcome is Outcome.TRY_LATER
    accept()
    past = timezone.now() - timedelta(seconds=1)
    Account.objects.filter(pk=account.pk).update(lease_until=past)
    seen = account.credential_id
    assert seen is not None

    if way == "on demand":
        asyncio.run(tokens.renewed(account.pk, seen))
    else:
        asyncio.run(tokens.refresh_due())

    account.refresh_from_db()
    assert account.credential_id != seen
    assert (account.status, parked()) == ("active", {})
    assert simulator.token_ledger()["refreshes"] == 1


def test_a_parked_pair_heals_an_account_that_was_given_up(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "KEEP_SECONDS", 0.0)
    refuse()
    asyncio.run(give_up(account))
    accept()
    row = Account.objects.filter(pk=account.pk)
    row.update(status="invalid", reason="refresh_interrupted")

    asyncio.run(tokens.refresh_due())

    assert row.get().status == "active"


def test_a_parked_pair_is_sealed(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "KEEP_SECONDS", 0.0)
    refuse()

    asyncio.run(give_up(account))

    (sealed,) = parked().values()
    assert "sk-ant" not in sealed
    pair = parking.everything()[0]
    assert pair.answer.access_token.startswith("sk-ant-oat01-")
    assert "sk-ant" not in repr(pair)
    with contextlib.closing(for_jobs()) as client:
        client.hset(parking.HASH, f"{account.pk + 1}:{account.credential_id}", sealed)
    assert len(parking.everything()) == 1


def test_a_removed_account_leaves_nothing_parked(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "KEEP_SECONDS", 0.0)
    refuse()
    asyncio.run(give_up(account))
    accept()
    Account.objects.filter(pk=account.pk).update(lease_until=None)

    lifecycle.remove(account, by="ada")

    assert parked() == {}
    assert not Credential.objects.exists()
