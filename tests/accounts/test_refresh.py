"""Token refresh: one call for all who ask, and what each answer does to the account."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from accounts import linking, tokens, waits
from accounts.models import Account, Credential
from accounts.renewal import Outcome, Renewal
from events.models import Event
from lib.db import in_thread
from tests.accounts.conftest import SESSION
from tests.support.simulator import Simulator

ADA = "ada@example.com"
TOKEN = {"path": "/v1/oauth/token"}
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _believes_refusals_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CONFIRM_SECONDS", 0.05)


def ends_in(account: Account, **left: float) -> UUID:
    """Let the account's access token end in so much time; return the generation's id."""
    assert account.credential_id is not None
    ends_at = timezone.now() + timedelta(**left)
    Credential.objects.filter(pk=account.credential_id).update(expires_at=ends_at)
    return account.credential_id


def forget_backoff(account: Account) -> None:
    Account.objects.filter(pk=account.pk).update(refresh_not_before=None)


def renew(account: Account, seen: UUID, **options: Any) -> Renewal:
    async def run() -> Renewal:
        try:
            return await tokens.renewed(account.pk, seen, **options)
        finally:
            await tokens.settled()

    return asyncio.run(run())


async def called(account: Account) -> None:
    """Wait until the refresh of an account has been claimed."""
    claimed = Account.objects.filter(pk=account.pk, lease_until__isnull=False)
    while not await in_thread(claimed.exists):
        await asyncio.sleep(0.01)


def kinds(account: Account) -> list[str]:
    events = Event.objects.filter(subject=f"account:{account.pk}").order_by("id")
    return [event.kind for event in events]


def test_a_refresh_makes_the_next_generation_of_the_same_grant(
    account: Account, simulator: Simulator
) -> None:
    seen = ends_in(account, seconds=30)

    renewal = renew(account, seen)

    account.refresh_from_db()
    generations = Credential.objects.filter(account=account).order_by("generation")
    assert [(row.grant, row.generation) for row in generations] == [(1, 1), (1, 2)]
    assert renewal.outcome is Outcome.RENEWED
    assert (renewal.credential, renewal.secret) == (generations[1].id, generations[1].access_token)
    assert account.credential_id == renewal.credential
    assert (account.lease_owner, account.lease_until, account.intent_credential) == ("", None, None)
    assert simulator.token_ledger()["refreshes"] == 1
    assert "account.refreshed" in kinds(account)


def test_what_is_known_to_be_newer_needs_no_call(account: Account, simulator: Simulator) -> None:
    seen = ends_in(account, seconds=30)
    first = renew(account, seen)

    assert renew(account, seen) == first
    assert simulator.token_ledger()["refreshes"] == 1


def test_fifty_that_ask_at_once_cause_one_call(account: Account, simulator: Simulator) -> None:
    seen = ends_in(account, seconds=0)
    simulator.script(TOKEN, delay=0.2)

    async def ask() -> list[Renewal]:
        return await asyncio.gather(*(tokens.renewed(account.pk, seen) for _ in range(50)))

    renewals = asyncio.run(ask())

    assert {renewal.outcome for renewal in renewals} == {Outcome.RENEWED}
    assert len({renewal.credential for renewal in renewals}) == 1
    assert simulator.token_ledger()["refreshes"] == 1


def test_a_caller_that_goes_away_does_not_end_the_refresh(
    account: Account, simulator: Simulator
) -> None:
    seen = ends_in(account, seconds=0)
    simulator.script(TOKEN, delay=0.2)

    async def hang_up() -> None:
        asking = asyncio.create_task(tokens.renewed(account.pk, seen))
        await called(account)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert asking.cancelled()
        await tokens.settled()

    asyncio.run(hang_up())

    account.refresh_from_db()
    assert account.credential_id != seen
    assert simulator.token_ledger()["refreshes"] == 1


def test_who_waits_too_long_is_told_to_try_later_and_the_refresh_goes_on(
    account: Account, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = ends_in(account, seconds=0)
    simulator.script(TOKEN, delay=0.4)
    monkeypatch.setattr(tokens, "WAIT_SECONDS", 0.1)

    assert renew(account, seen).outcome is Outcome.TRY_LATER

    account.refresh_from_db()
    assert account.credential_id != seen


def test_s06_a_definitive_refusal_makes_the_account_invalid(
    account: Account, simulator: Simulator
) -> None:
    seen = ends_in(account, seconds=0)
    simulator.revoke_grant(ADA)

    renewal = renew(account, seen)

    account.refresh_from_db()
    assert (renewal.outcome, account.status) == (Outcome.DEAD, "invalid")
    assert (account.reason, account.lease_owner) == ("refresh_rejected", "")
    assert renew(account, seen).outcome is Outcome.DEAD
    assert simulator.token_ledger()["refreshes"] == 1


@pytest.mark.parametrize("error", ["invalid_grant", "invalid_client", "unauthorized_client"])
@pytest.mark.parametrize("status", [400, 401])
def test_only_these_refusals_mean_dead(
    account: Account, simulator: Simulator, status: int, error: str
) -> None:
    simulator.script(TOKEN, status=status, body={"error": error})

    assert renew(account, ends_in(account, seconds=0)).outcome is Outcome.DEAD


TRANSIENT: list[dict[str, Any]] = [
    {"status": 429, "body": {"error": {"type": "rate_limit_error"}}},
    {"status": 403, "body": "<html>blocked</html>"},
    {"status": 403, "body": {"error": {"type": "forbidden", "message": "Request not allowed"}}},
    {"status": 503, "body": {"error": "unavailable"}},
    {"status": 500, "body": {"error": {"type": "api_error"}}},
    {"status": 502, "body": "<html>bad gateway</html>"},
    {"status": 400, "body": {"error": {"type": "invalid_request_error"}}},
    {"status": 400, "body": "invalid_grant"},
    {"status": 200, "body": "<html>a captive portal</html>"},
    {"status": 200, "body": {"access_token": "two\r\nlines"}},
    {"status": 302, "headers": {"location": "https://example.com/"}},
    {"status": 404, "body": {"error": "not_found"}},
    {"reset": True},
]


@pytest.mark.parametrize("action", TRANSIENT)
def test_s19_a_transient_failure_leaves_the_status_and_waits(
    account: Account, simulator: Simulator, action: dict[str, Any]
) -> None:
    seen = ends_in(account, minutes=5)
    simulator.script(TOKEN, **action)

    before = timezone.now()
    first, second = renew(account, seen), renew(account, seen)

    account.refresh_from_db()
    assert {first.outcome, second.outcome} == {Outcome.TRY_LATER}
    assert (account.status, account.credential_id) == ("active", seen)
    assert (account.refresh_failures, account.cooldown_until) == (1, None)
    assert account.refresh_not_before is not None
    assert 1 <= (account.refresh_not_before - before).total_seconds() <= 90
    event = Event.objects.get(kind="account.refresh_failed")
    assert event.data["attempt"] == 1
    assert 1 <= event.data["seconds"] <= 60
    assert len(simulator.requests("/v1/oauth/token")) == 2  # the linking and one refresh


def test_after_the_back_off_the_refresh_succeeds(account: Account, simulator: Simulator) -> None:
    seen = ends_in(account, minutes=5)
    simulator.script(TOKEN, status=429, body={"error": {"type": "rate_limit_error"}})
    renew(account, seen)
    forget_backoff(account)

    assert renew(account, seen).outcome is Outcome.RENEWED

    account.refresh_from_db()
    assert account.refresh_failures == 0


@pytest.mark.parametrize(
    ("status", "ceilings"),
    [
        (429, [10, 20, 40, 80, 100]),
        (503, [20, 40, 80, 160, 200]),
        (403, [20, 40, 80, 160, 200]),
        (None, [30, 60, 120, 240, 300]),
    ],
)
def test_each_kind_of_failure_has_its_own_back_off(
    settings: Any, status: int | None, ceilings: list[int]
) -> None:
    own = {
        "backoff_rate_limited": (10.0, 100.0),
        "backoff_server_error": (20.0, 200.0),
        "backoff_timeout": (30.0, 300.0),
    }
    settings.CONFIG = settings.CONFIG.model_copy(update=own)

    policy = waits.policy(status)

    assert [policy.ceiling(failures) for failures in range(1, 6)] == ceilings
    assert policy.wait(3, dice=lambda low, high: (low + high) / 2) == ceilings[2] / 2
    assert policy.wait(1, at_least=900) == 900


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("900", 900),
        ("99999999999999999999", 3600),
        ("\u0663\u0660", 0),
        ("soon", 0),
        (None, 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 20 Nov 2026 12:00:30 GMT", 30),
        ("Fri, 20 Nov 99999999999999999999 12:00:30 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 -2300", 3600),
    ],
)
def test_a_retry_after_is_honoured_as_far_as_it_can_be_believed(
    text: str | None, seconds: float
) -> None:
    assert waits.retry_after(text, datetime(2026, 11, 20, 12, tzinfo=UTC)) == seconds


def test_a_wait_that_was_asked_for_is_kept_and_told(account: Account, simulator: Simulator) -> None:
    seen = ends_in(account, minutes=5)
    simulator.script(TOKEN, status=429, body={}, headers={"retry-after": "1800"})

    before = timezone.now()
    renew(account, seen)

    account.refresh_from_db()
    assert account.refresh_not_before is not None
    assert (account.refresh_not_before - before).total_seconds() >= 1800
    assert Event.objects.get(kind="account.refresh_failed").data["seconds"] >= 1800


def test_s19_an_ended_token_that_cannot_be_renewed_rests_the_account(
    account: Account, simulator: Simulator
) -> None:
    seen = ends_in(account, seconds=-1)
    simulator.script(TOKEN, status=429, body={})

    renew(account, seen)

    account.refresh_from_db()
    assert account.status == "active"
    assert account.cooldown_until is not None
    assert 40 < (account.cooldown_until - timezone.now()).total_seconds() <= 60


def test_not_found_means_dead_only_when_it_is_said_again_a_minute_later(
    account: Account, simulator: Simulator
) -> None:
    seen = ends_in(account, seconds=-1)
    simulator.script(TOKEN, times=None, status=404, body={"error": "not_found"})

    assert renew(account, seen).outcome is Outcome.TRY_LATER
    forget_backoff(account)
    assert renew(account, seen).outcome is Outcome.TRY_LATER
    forget_backoff(account)
    an_age_ago = timezone.now() - timedelta(seconds=61)
    Account.objects.filter(pk=account.pk).update(refresh_gone_at=an_age_ago)

    assert renew(account, seen).outcome is Outcome.DEAD


def test_s20_a_lost_answer_is_not_repeated_while_the_token_still_serves(
    account: Account, simulator: Simulator
) -> None:
    seen = ends_in(account, hours=1)
    simulator.script(TOKEN, process=True, reset=True)

    renew(account, seen)
    forget_backoff(account)
    renewal = renew(account, seen)

    account.refresh_from_db()
    assert (renewal.outcome, account.status) == (Outcome.TRY_LATER, "active")
    assert account.intent_credential == seen
    assert simulator.token_ledger()["refreshes"] == 1


def test_a_lost_answer_is_looked_into_once_when_the_token_ends(
    account: Account, simulator: Simulator
) -> None:
    seen = ends_in(account, minutes=9)
    simulator.script(TOKEN, process=True, reset=True)

    renew(account, seen)
    forget_backoff(account)
    renewal = renew(account, seen)

    account.refresh_from_db()
    assert (renewal.outcome, account.status) == (Outcome.DEAD, "invalid")
    assert account.reason == "refresh_interrupted"
    assert simulator.token_ledger()["refreshes"] == 2


def test_a_token_that_the_upstream_refused_is_not_spared(
    account: Account, simulator: Simulator
) -> None:
    seen = ends_in(account, hours=1)
    simulator.script(TOKEN, status=500, body={})
    renew(account, seen)
    forget_backoff(account)

    assert renew(account, seen).outcome is Outcome.TRY_LATER
    assert renew(account, seen, rejected=True).outcome is Outcome.RENEWED


def test_an_unreachable_endpoint_leaves_no_doubt(
    account: Account, simulator: Simulator, settings: Any
) -> None:
    seen = ends_in(account, hours=1)
    there = settings.CONFIG
    nowhere = {"oauth_token_url": "http://127.0.0.1:9/v1/oauth/token"}
    settings.CONFIG = there.model_copy(update=nowhere)
    renew(account, seen)
    settings.CONFIG = there
    forget_backoff(account)

    assert renew(account, seen).outcome is Outcome.RENEWED


def test_a_lease_that_a_killed_process_left_means_the_outcome_is_unknown(
    account: Account, simulator: Simulator
) -> None:
    seen = ends_in(account, hours=1)
    past = timezone.now() - timedelta(seconds=1)
    Account.objects.filter(pk=account.pk).update(
        lease_owner="killed", lease_until=past, intent_credential=seen
    )

    assert renew(account, seen).outcome is Outcome.TRY_LATER
    assert simulator.token_ledger()["refreshes"] == 0

    ends_in(account, minutes=1)
    assert renew(account, seen).outcome is Outcome.RENEWED


def test_a_live_lease_of_another_process_is_waited_for(
    account: Account, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = ends_in(account, seconds=0)
    later = timezone.now() + timedelta(seconds=60)
    Account.objects.filter(pk=account.pk).update(lease_owner="other", lease_until=later)
    monkeypatch.setattr(tokens, "WAIT_SECONDS", 0.2)

    assert renew(account, seen).outcome is Outcome.TRY_LATER
    assert simulator.token_ledger()["refreshes"] == 0


def test_a_refusal_is_not_believed_when_a_newer_generation_is_there(
    account: Account, simulator: Simulator
) -> None:
    seen = ends_in(account, seconds=0)
    simulator.script(TOKEN, delay=1.0, status=400, body={"error": "invalid_grant"})
    flow = linking.begin(by="ada", session=SESSION)
    pasted = simulator.authorize(flow.url, ADA)

    def relink() -> None:
        linking.complete(flow.id, pasted, session=SESSION)
        linking.confirm(flow.id, session=SESSION, by="ada")

    async def run() -> Renewal:
        asking = asyncio.create_task(tokens.renewed(account.pk, seen))
        await called(account)
        await in_thread(relink)
        return await asking

    renewal = asyncio.run(run())

    account.refresh_from_db()
    assert (account.status, renewal.outcome) == ("active", Outcome.RENEWED)
    assert renewal.credential == account.credential_id


def test_a_refresh_that_a_relink_overtook_keeps_its_pair_under_its_own_grant(
    account: Account, simulator: Simulator
) -> None:
    seen = ends_in(account, seconds=0)
    simulator.script(TOKEN, delay=0.5)
    flow = linking.begin(by="ada", session=SESSION)
    pasted = simulator.authorize(flow.url, ADA)

    def relink() -> None:
        linking.complete(flow.id, pasted, session=SESSION)
        linking.confirm(flow.id, session=SESSION, by="ada")

    async def run() -> None:
        asking = asyncio.create_task(tokens.renewed(account.pk, seen))
        await called(account)
        await in_thread(relink)
        await asking

    asyncio.run(run())

    account.refresh_from_db()
    rows = Credential.objects.filter(account=account).values_list("grant", "generation")
    assert sorted(rows) == [(1, 1), (1, 2), (2, 1)]
    assert account.credential is not None
    assert account.credential.grant == 2


def test_a_missing_refresh_token_keeps_the_old_one(account: Account, simulator: Simulator) -> None:
    simulator.script(TOKEN, omit_refresh_token=True)
    assert account.credential is not None
    old = account.credential.refresh_token

    renewal = renew(account, ends_in(account, seconds=0))

    assert Credential.objects.get(pk=renewal.credential).refresh_token == old


@pytest.mark.parametrize("odd", ["soon", -5, 0, 10**30, True, None, [3600], 59, 1.5])
def test_an_odd_life_time_counts_as_an_hour_and_keeps_the_pair(
    account: Account, simulator: Simulator, odd: object
) -> None:
    if odd is None:
        simulator.script(TOKEN, omit=["expires_in"])
    else:
        simulator.script(TOKEN, expires_in=odd)

    renewal = renew(account, ends_in(account, seconds=0))

    assert renewal.outcome is Outcome.RENEWED
    assert renewal.expires_at is not None
    assert 3500 < (renewal.expires_at - timezone.now()).total_seconds() <= 3600


@pytest.mark.parametrize("odd", ["1e400", "9" * 5000, "NaN"])
def test_a_number_that_python_cannot_read_keeps_the_pair(
    account: Account, simulator: Simulator, odd: str
) -> None:
    body = f'{{"access_token": "new", "refresh_token": "next", "expires_in": {odd}}}'
    simulator.script(TOKEN, body=body, headers={"content-type": "application/json"})

    renewal = renew(account, ends_in(account, seconds=0))

    assert (renewal.outcome, renewal.secret) == (Outcome.RENEWED, "new")
    assert Credential.objects.get(pk=renewal.credential).refresh_token == "next"


@pytest.mark.parametrize("reason", ["refresh_interrupted", "auth_rejected"])
def test_s13_a_newer_generation_heals_what_only_wanted_one(
    account: Account, simulator: Simulator, reason: str
) -> None:
    seen = ends_in(account, seconds=0)
    simulator.script(TOKEN, delay=0.4)

    async def reject_meanwhile() -> None:
        asking = asyncio.create_task(tokens.renewed(account.pk, seen))
        await called(account)
        row = Account.objects.filter(pk=account.pk)
        await in_thread(row.update, status="invalid", reason=reason)
        await asking

    asyncio.run(reject_meanwhile())

    account.refresh_from_db()
    assert account.status == "active"


def test_accounts_without_refresh_token_are_left_alone(
    account: Account, simulator: Simulator
) -> None:
    seen = ends_in(account, hours=1)
    Credential.objects.filter(pk=seen).update(refresh_token=None)

    assert renew(account, seen).outcome is Outcome.UNRENEWABLE
    ends_in(account, seconds=-1)
    assert renew(account, seen).outcome is Outcome.DEAD

    account.refresh_from_db()
    assert (account.status, account.reason) == ("invalid", "expired")
    assert simulator.token_ledger()["refreshes"] == 0


def test_a_refresh_tells_whose_an_unknown_login_is(account: Account, simulator: Simulator) -> None:
    row = Account.objects.filter(pk=account.pk)
    row.update(account_uuid="", organization_uuid="", secret_hash="h", email="")

    renew(account, ends_in(account, seconds=0))

    assert row.get().account_uuid == simulator.accounts()[ADA]["account_uuid"]
    assert row.get().email == ADA


def test_a_credential_that_does_not_open_is_no_crash(account: Account) -> None:
    seen = ends_in(account, seconds=0)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE accounts_credential SET refresh_token = 'damaged'")

    assert renew(account, seen).outcome is Outcome.TRY_LATER


def test_a_removed_account_is_dead(account: Account) -> None:
    seen = ends_in(account, seconds=0)
    Account.objects.filter(pk=account.pk).update(deleted_at=timezone.now(), credential=None)

    assert renew(account, seen).outcome is Outcome.DEAD


def test_no_token_shows_in_logs_events_or_reprs(
    account: Account, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    assert account.credential is not None
    echo = str(account.credential.refresh_token)
    simulator.script(TOKEN, status=500, body={"error": echo, "error_description": echo})
    seen = ends_in(account, seconds=0)
    renew(account, seen)
    forget_backoff(account)
    renewal = renew(account, seen)

    told = [record.getMessage() for record in caplog.records]
    told += [str(event.data) for event in Event.objects.all()]
    told.append(repr(renewal))
    rows = Credential.objects.all()
    hidden = {row.access_token for row in rows} | {row.refresh_token for row in rows}
    assert not any(secret in text for text in told for secret in hidden if secret)
