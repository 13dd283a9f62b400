"""What operators and jobs do to accounts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import adding, health, lifecycle, tasks, tokens
from accounts.errors import MoveRefused, TryLater
from accounts.models import Account, Credential
from accounts.pool import load
from accounts.states import Trigger
from events.models import Event
from tests.support.simulator import Simulator

ADA = "ada@example.com"
TOKEN = {"path": "/v1/oauth/token"}


@pytest.fixture(autouse=True)
def _believes_refusals_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CONFIRM_SECONDS", 0.05)


@pytest.fixture
def key(db: None) -> Account:
    return adding.add_secret("api_key", "key", "sk-ant-api03-key", by="ada")


def change(account: Account, **fields: Any) -> None:
    Account.objects.filter(pk=account.pk).update(**fields)


def end(account: Account) -> None:
    past = timezone.now() - timedelta(hours=1)
    Credential.objects.filter(pk=account.credential_id).update(expires_at=past)


def test_s08_s09_a_disabled_account_is_out_of_the_pool_until_it_is_enabled(key: Account) -> None:
    assert lifecycle.disable(key, by="ada").status == "inactive"
    assert not load().members[0].is_usable(timezone.now())

    assert lifecycle.enable(key, by="ada").status == "active"
    assert load().members[0].is_usable(timezone.now())


def test_what_makes_no_sense_is_refused_in_words(key: Account) -> None:
    with pytest.raises(MoveRefused, match="key is active, not inactive"):
        lifecycle.enable(key, by="ada")
    lifecycle.disable(key, by="ada")
    with pytest.raises(MoveRefused, match="key is inactive: there is nothing to disable"):
        lifecycle.disable(key, by="ada")


@pytest.mark.parametrize("cut", [False, True])
def test_s08_an_idle_account_can_be_kept_from_being_woken(key: Account, cut: bool) -> None:
    key.apply(Trigger.IDLE, by="job", reason="idle")

    disabled = lifecycle.disable(key, by="ada", cut=cut)

    assert (disabled.status, disabled.reason) == ("inactive", "admin")
    assert not health.wake(key.pk)
    assert Event.objects.latest("pk").kind == "account.disable"


@pytest.mark.parametrize("reason", ["restored", "", "cut", "admin"])
def test_an_account_that_is_out_for_another_reason_keeps_it(key: Account, reason: str) -> None:
    change(key, status="inactive", reason=reason)

    with pytest.raises(MoveRefused, match="nothing to disable"):
        lifecycle.disable(key, by="ada")
    assert Account.objects.get().reason == reason


@pytest.mark.django_db(transaction=True)
def test_enabling_renews_a_token_that_has_ended(account: Account) -> None:
    lifecycle.disable(account, by="ada")
    end(account)

    enabled = lifecycle.enable(account, by="ada")

    assert (enabled.status, enabled.credential_id != account.credential_id) == ("active", True)


@pytest.mark.django_db(transaction=True)
def test_enabling_a_dead_login_says_that_it_is_dead(account: Account, simulator: Simulator) -> None:
    lifecycle.disable(account, by="ada")
    end(account)
    simulator.revoke_grant(ADA)

    enabled = lifecycle.enable(account, by="ada")

    assert (enabled.status, enabled.reason) == ("invalid", "refresh_rejected")


@pytest.mark.django_db(transaction=True)
def test_enabling_a_dead_login_says_that_somebody_was_faster(
    account: Account, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifecycle.disable(account, by="ada")
    end(account)
    simulator.revoke_grant(ADA)
    refresh = lifecycle._refresh

    def overtaken(*args: Any, **options: Any) -> Any:
        renewal = refresh(*args, **options)
        change(account, reason="cut", state_version=7)
        return renewal

    monkeypatch.setattr(lifecycle, "_refresh", overtaken)
    with pytest.raises(TryLater, match="somebody else"):
        lifecycle.enable(account, by="ada")

    account.refresh_from_db()
    assert (account.status, account.reason) == ("inactive", "cut")


@pytest.mark.django_db(transaction=True)
def test_enabling_waits_while_the_token_endpoint_is_away(
    account: Account, simulator: Simulator
) -> None:
    lifecycle.disable(account, by="ada")
    end(account)
    simulator.script(TOKEN, status=503, body={})

    with pytest.raises(TryLater):
        lifecycle.enable(account, by="ada")

    account.refresh_from_db()
    assert account.status == "inactive"


@pytest.mark.django_db(transaction=True)
def test_trying_an_invalid_account_again_brings_it_back(
    account: Account, simulator: Simulator
) -> None:
    account.apply(Trigger.REJECT, by="relay", reason="provider_disabled")

    assert lifecycle.refresh(account, by="ada").status == "active"
    assert simulator.token_ledger()["refreshes"] == 1


@pytest.mark.django_db(transaction=True)
def test_a_dead_login_can_be_tried_once_a_minute(account: Account, simulator: Simulator) -> None:
    account.apply(Trigger.REJECT, by="relay", reason="auth_rejected")
    simulator.revoke_grant(ADA)

    for _ in range(3):
        with pytest.raises((MoveRefused, TryLater)):
            lifecycle.retry(account, by="ada")

    account.refresh_from_db()
    assert (account.status, account.reason) == ("invalid", "auth_rejected")
    assert simulator.token_ledger()["refreshes"] == 1


@pytest.mark.django_db(transaction=True)
def test_a_key_that_was_refused_can_be_tried_again(key: Account) -> None:
    key.apply(Trigger.REJECT, by="relay", reason="auth_rejected")

    assert lifecycle.retry(key, by="ada").status == "active"
    with pytest.raises(MoveRefused, match="nothing to refresh"):
        lifecycle.refresh(key, by="ada")


@pytest.mark.django_db(transaction=True)
def test_a_removed_account_keeps_its_row_and_no_secret(link: Any) -> None:
    account = link()

    lifecycle.remove(account, by="ada")

    row = Account.objects.get()
    assert (row.deleted_at is not None, row.credential, row.name != ADA) == (True, None, True)
    assert not Credential.objects.exists()
    assert load().members == ()
    assert Event.objects.filter(kind="account.removed", subject=account.subject).exists()
    with pytest.raises(MoveRefused, match="was removed"):
        lifecycle.enable(account, by="ada")
    assert link().name == ADA


@pytest.mark.django_db
def test_an_account_is_not_removed_in_the_middle_of_a_refresh(key: Account) -> None:
    change(key, lease_owner="other", lease_until=timezone.now() + timedelta(seconds=60))

    with pytest.raises(TryLater):
        lifecycle.remove(key, by="ada")

    assert Credential.objects.exists()


@pytest.mark.django_db
def test_s05_a_limit_that_has_passed_ends(key: Account) -> None:
    until = timezone.now() + timedelta(hours=1)
    key.apply(Trigger.LIMIT, by="relay", reason="rate_limit", limited_until=until)

    assert lifecycle.recover_rate_limited(until - timedelta(seconds=1)) == 0
    assert lifecycle.recover_rate_limited(until) == 1
    assert lifecycle.recover_rate_limited(until) == 0

    key.refresh_from_db()
    assert (key.status, key.limited_until) == ("active", None)


@pytest.mark.django_db
def test_s07_only_accounts_that_nobody_uses_become_idle(key: Account) -> None:
    week = timedelta(days=7, seconds=1)
    now = timezone.now() + week
    used = adding.add_secret("api_key", "used", "used", by="ada")
    change(used, last_used_at=now - timedelta(days=6))
    pinned = adding.add_secret("api_key", "pinned", "pinned", by="ada")
    change(pinned, pinned=True)

    assert lifecycle.deactivate_idle(timezone.now()) == 0
    assert lifecycle.deactivate_idle(now) == 1

    states = dict(Account.objects.values_list("name", "reason"))
    assert states == {"key": "idle", "used": "", "pinned": ""}
    assert Account.objects.get(name="key").status == "inactive"


@pytest.mark.django_db
def test_an_account_that_was_just_enabled_is_not_idle_at_once(key: Account) -> None:
    long_ago = timezone.now() - timedelta(days=30)
    change(key, last_used_at=long_ago, created_at=long_ago, grant_started_at=long_ago)
    change(key, status="inactive", status_changed_at=long_ago)
    lifecycle.enable(key, by="ada")

    assert lifecycle.deactivate_idle() == 0


@pytest.mark.django_db(transaction=True)
def test_the_jobs_run(account: Account) -> None:
    for job in (
        tasks.drain_facts,
        tasks.refresh_tokens,
        tasks.recover_rate_limited,
        tasks.deactivate_idle,
        tasks.shred_link_flows,
    ):
        job()

    account.refresh_from_db()
    assert account.status == "active"
