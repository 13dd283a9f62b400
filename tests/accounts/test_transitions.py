"""The rows S02, S05b, S08, S10, S11, S14, S15, S17 and S18, by the verbs that perform them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import adding, facts, health, lifecycle, pool, purge, tokens
from accounts.adding import AlreadyLinked
from accounts.errors import MoveRefused, TryLater
from accounts.models import Account, Credential, Egress, LimitWindow, WindowSample
from accounts.states import Trigger
from events import conditions
from events.models import Condition, Event
from providers.base import Window
from relay.models import Resource
from sessions_limit import keys
from tests.support.simulator import Simulator
from usage.models import RequestRecord

ADA = "ada@example.com"
TOKEN = {"path": "/v1/oauth/token"}
MODELS = {"path": "/v1/models"}


@pytest.fixture(autouse=True)
def _believes_refusals_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CONFIRM_SECONDS", 0.05)


@pytest.fixture
def key(db: None) -> Account:
    return adding.add_secret("api_key", "key", "sk-ant-api03-key", by="ada")


def change(account: Account, **fields: Any) -> None:
    Account.objects.filter(pk=account.pk).update(**fields)


def kinds(account: Account) -> list[str]:
    events = Event.objects.filter(subject=account.subject).order_by("id")
    return [event.kind.removeprefix("account.") for event in events]


# S02, S11


@pytest.mark.django_db
def test_s02_a_secret_from_a_back_up_serves_nobody_and_replaces_nothing(key: Account) -> None:
    restored = adding.add_secret("setup_token", "old", "sk-old", by="ada", is_restored=True)

    assert (restored.status, restored.reason) == ("inactive", "restored")
    assert kinds(restored) == ["restored"]
    change(key, status="invalid")
    with pytest.raises(AlreadyLinked):
        adding.add_secret("api_key", "key", "sk-ant-api03-key", by="ada", is_restored=True)


@pytest.mark.django_db(transaction=True)
def test_s11_a_restored_login_is_refreshed_before_it_serves(
    account: Account, simulator: Simulator
) -> None:
    change(account, status="inactive", reason="restored")

    enabled = lifecycle.enable(account, by="ada")

    assert enabled.status == "active"
    assert simulator.token_ledger()["refreshes"] == 1


@pytest.mark.django_db(transaction=True)
def test_s11_a_restored_login_that_is_dead_is_invalid(
    account: Account, simulator: Simulator
) -> None:
    change(account, status="inactive", reason="restored")
    simulator.revoke_grant(ADA)

    enabled = lifecycle.enable(account, by="ada")

    assert (enabled.status, enabled.reason) == ("invalid", "refresh_rejected")


@pytest.mark.parametrize(
    ("action", "state"),
    [
        ({"status": 200, "body": {"data": []}}, ("active", "")),
        ({"status": 401, "body": {}}, ("invalid", "auth_rejected")),
        ({"status": 404, "body": {}}, ("active", "")),
        ({"status": 429, "body": {}}, None),
        ({"status": 503, "body": {}}, None),
        ({"reset": True}, None),
    ],
)
@pytest.mark.django_db(transaction=True)
def test_s11_a_restored_key_is_tried_for_free(
    key: Account, simulator: Simulator, action: dict[str, Any], state: tuple[str, str] | None
) -> None:
    change(key, status="inactive", reason="restored")
    simulator.script(MODELS, **action)

    if state is None:
        with pytest.raises(TryLater):
            lifecycle.enable(key, by="ada")
    else:
        lifecycle.enable(key, by="ada")

    row = Account.objects.get()
    assert (row.status, row.reason) == (state or ("inactive", "restored"))


# S05b by an operator


@pytest.mark.django_db
def test_s05b_an_operator_clears_a_limit_and_a_cool_down(key: Account) -> None:
    now = timezone.now()
    health.limit(key.pk, now + timedelta(hours=5), "limit_reached (5h)", observed_at=now)
    health.cool_down(key.pk, now + timedelta(minutes=5), "retry_after")

    cleared = lifecycle.clear(key, by="ada", now=now)

    assert (cleared.status, cleared.limited_until, cleared.cooldown_until) == ("active", None, None)
    (member,) = pool.load().members
    assert (member.is_usable(now), member.cleared_at) == (True, now)
    assert kinds(key)[-2:] == ["recover", "cleared"]
    assert {event.by for event in Event.objects.filter(kind="account.recover")} == {"ada"}


@pytest.mark.parametrize("status", ["inactive", "invalid"])
@pytest.mark.django_db
def test_what_waits_for_no_limit_cannot_be_cleared(key: Account, status: str) -> None:
    change(key, status=status)

    with pytest.raises(MoveRefused, match="it waits for no limit"):
        lifecycle.clear(key, by="ada")


@pytest.mark.django_db
def test_an_account_set_aside_by_choice_is_not_probed(key: Account) -> None:
    now = timezone.now()
    until = now + timedelta(hours=5)

    health.limit(key.pk, until, "headroom (5h)", observed_at=now, probes=False)
    later = now + timedelta(hours=2)
    assert not pool.load().members[0].may_be_probed(later)
    assert not health.claim_probe(key.pk, now=later)

    health.limit(key.pk, until + timedelta(hours=1), "limit_reached (5h)", observed_at=now)
    assert pool.load().members[0].may_be_probed(later)


@pytest.mark.django_db
def test_a_limit_that_is_seen_again_is_newer_evidence(key: Account) -> None:
    now = timezone.now()
    until = now + timedelta(hours=5)

    for age in (60, 0, 30):
        seen = now + timedelta(seconds=60 - age)
        health.limit(key.pk, until, "limit_reached", observed_at=seen)

    assert Account.objects.get().limit_observed_at == now + timedelta(seconds=60)
    assert kinds(key).count("limit") == 1


# S08


@pytest.mark.django_db
def test_s08_what_was_disabled_can_still_be_cut(key: Account) -> None:
    lifecycle.disable(key, by="ada")

    cut = lifecycle.disable(key, by="ada", cut=True)

    assert (cut.status, cut.reason) == ("inactive", "cut")
    assert kinds(key)[-2:] == ["disable", "cut"]
    with pytest.raises(MoveRefused):
        lifecycle.disable(key, by="ada", cut=True)
    assert lifecycle.enable(key, by="ada").reason == ""


# S10


@pytest.mark.django_db
def test_s10_a_request_wakes_what_is_idle_and_nothing_else(key: Account) -> None:
    for reason in ("admin", "cut", "restored"):
        change(key, status="inactive", reason=reason)
        assert not health.wake(key.pk)
    change(key, reason="idle")

    assert health.wake(key.pk)
    assert not health.wake(key.pk)

    assert Account.objects.get().status == "active"
    event = Event.objects.get(kind="account.wake")
    assert event.by == "request"


@pytest.mark.django_db
def test_s10_what_is_woken_and_dead_is_invalid(key: Account) -> None:
    change(key, status="inactive", reason="idle")

    assert health.wake(key.pk, dead="expired")

    row = Account.objects.get()
    assert (row.status, row.reason) == ("invalid", "expired")
    assert kinds(key)[-2:] == ["wake", "reject"]


# S14


@pytest.mark.django_db(transaction=True)
def test_s14_of_all_retries_one_in_a_minute_is_made(key: Account) -> None:
    now = timezone.now()

    def reject() -> None:
        health.refuse(key.pk, "auth_rejected", credential=None)

    reject()
    assert lifecycle.retry(key, by="ada", now=now).status == "active"
    reject()
    with pytest.raises(TryLater, match="Try again in 41 s"):
        lifecycle.retry(key, by="grace", now=now + timedelta(seconds=19.5))
    assert Account.objects.get().status == "invalid"
    assert lifecycle.retry(key, by="ada", now=now + timedelta(seconds=60)).status == "active"
    reject()
    # The clock was set back.
    assert lifecycle.retry(key, by="ada", now=now - timedelta(hours=1)).status == "active"


# S18


@pytest.mark.django_db
def test_s18_a_removal_destroys_every_secret_and_ends_what_holds(key: Account) -> None:
    Egress.objects.create(account=key, url="http://user:secret@proxy:3128")
    conditions.begin("account.near_limit", key.subject, now=timezone.now())

    lifecycle.remove(key, by="ada")

    assert not Egress.objects.exists()
    assert not Credential.objects.exists()
    assert not Condition.objects.exists()


@pytest.mark.django_db
def test_s18_what_is_left_is_deleted_after_a_month_and_its_records_stay(
    key: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "BATCH", 2)
    now = timezone.now()
    other = adding.add_secret("api_key", "other", "other", by="ada")
    relay_key, _ = keys.create(name="key", by="ada")
    for number in range(5):
        for account in (key, other):
            Resource.objects.create(
                kind="file", upstream_id=f"{account}{number}", account=account, key=relay_key
            )
            minute = now + timedelta(minutes=number)
            WindowSample.objects.create(account=account, name="5h", at=minute, utilization=0.5)
            name = f"window {number}"
            LimitWindow.objects.create(account=account, name=name, observed_at=now)
        RequestRecord.objects.create(
            request_id=f"rly_{number}",
            account=key,
            endpoint="/v1/messages",
            status=200,
            ended="complete",
            started_at=now,
            ended_at=now,
        )
    lifecycle.remove(key, by="ada", now=now)

    assert purge.purge_removed(now + timedelta(days=30) - timedelta(seconds=1)) == 0
    assert purge.purge_removed(now + timedelta(days=30)) == 1
    assert purge.purge_removed(now + timedelta(days=60)) == 0

    assert Account.objects.get() == other
    for model in (WindowSample, LimitWindow, Resource):
        assert model._default_manager.count() == 5
    assert RequestRecord.objects.filter(account=None).count() == 5
    assert kinds(key)[-2:] == ["removed", "purged"]


# S15, S17


@pytest.mark.django_db
def test_s17_a_late_success_ends_no_limit(key: Account) -> None:
    now = timezone.now()
    until = now + timedelta(hours=5)
    health.limit(key.pk, until, "limit_reached (5h)", observed_at=now)

    facts.write([facts.row(key.pk, now + timedelta(seconds=1), [Window("5h", "allowed", 0.9)])])

    row = Account.objects.get()
    assert (row.status, row.limited_until) == ("rate_limited", until)


@pytest.mark.parametrize("trigger", [Trigger.LIMIT, Trigger.RECOVER, Trigger.IDLE, Trigger.WAKE])
@pytest.mark.django_db
def test_s15_nothing_but_its_owner_or_a_newer_token_ends_invalid(
    key: Account, trigger: Trigger
) -> None:
    change(key, status="invalid", reason="auth_rejected")
    key.refresh_from_db()

    until = timezone.now() + timedelta(hours=1)
    assert not key.apply(trigger, by="job", limited_until=until)
    assert not health.recover(key.pk, by="job", now=until)
    assert not health.reopen(key.pk, limited_until=None)
    assert not health.claim_probe(key.pk, now=until)

    assert Account.objects.get().status == "invalid"
