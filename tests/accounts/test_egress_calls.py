"""What is asked about an account that has a proxy goes by that proxy, and by nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.conf import settings

from accounts import profiles, tokens
from accounts.models import Account, Egress
from accounts.renewal import Outcome, Renewal
from lib.db import in_thread
from tests.relay.proxies import HttpProxy
from tests.support.simulator import Simulator

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _proxies_may_be_here(settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"allow_loopback_upstreams": True})


async def renew(account: Account) -> Renewal:
    assert account.credential_id is not None
    renewal = await tokens.renewed(account.pk, account.credential_id, rejected=True)
    await tokens.settled()
    return renewal


def test_refresh_and_profile_go_by_the_proxy(account: Account, simulator: Simulator) -> None:
    Account.objects.update(profile_checked_at=None)

    async def both() -> list[str]:
        async with HttpProxy("secret") as proxy:
            url = proxy.url("secret")
            await in_thread(Egress.objects.create, account=account, url=url)
            assert (await renew(account)).outcome is Outcome.RENEWED
            assert await profiles.check_due() == 1
            return proxy.asked

    url = settings.CONFIG.upstream_base_url
    asked = [f"POST {url}/v1/oauth/token", f"GET {url}/api/oauth/profile"]
    assert asyncio.run(both()) == asked


def test_a_proxy_that_is_away_uses_up_no_refresh_token(
    account: Account, simulator: Simulator
) -> None:
    Egress.objects.create(account=account, url="http://127.0.0.1:1")

    renewal = asyncio.run(renew(account))

    account.refresh_from_db()
    assert (renewal.outcome, simulator.token_ledger()["refreshes"]) == (Outcome.TRY_LATER, 0)
    assert (account.status, account.intent_credential) == ("active", None)
