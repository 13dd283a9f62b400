"""The daily look at each account's profile: what is learnt, how often, and what failures do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import answers, profile_endpoint, profiles
from accounts.models import Account, Egress
from events.models import Event
from tests.support.simulator import Simulator

ADA = "ada@example.com"
PROFILE = {"path": "/api/oauth/profile"}
DAY = timedelta(hours=24)
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def due(account: Account, simulator: Simulator) -> Account:
    """Return an account whose profile was read long enough ago for any spread."""
    checked_at = timezone.now() - DAY - profiles.SPREAD
    Account.objects.filter(pk=account.pk).update(profile_checked_at=checked_at)
    simulator.clear_requests()
    return account


def check(now: datetime | None = None) -> int:
    return asyncio.run(profiles.check_due(now))


def asked(simulator: Simulator) -> int:
    return len(simulator.requests(PROFILE["path"]))


def events(*kinds: str) -> list[tuple[str, dict[str, Any]]]:
    rows = Event.objects.filter(kind__in=kinds).order_by("id")
    return [(row.kind, row.data) for row in rows]


def test_what_changed_is_written_down_and_journaled_once(
    due: Account, simulator: Simulator
) -> None:
    simulator.person(
        ADA, organization_type="claude_team", subscription_status="past_due", rate_limit_tier="t"
    )

    assert check() == 1
    Account.objects.update(profile_checked_at=timezone.now() - 2 * DAY)
    assert check() == 1

    due.refresh_from_db()
    assert (due.plan, due.tier, due.subscription_status) == ("team", "t", "past_due")
    (changed,) = events("account.profile_changed")
    assert changed[1] == {
        "old": {"plan": "max", "tier": "default_claude_max_20x", "subscription_status": "active"},
        "new": {"plan": "team", "tier": "t", "subscription_status": "past_due"},
    }


def test_another_organisation_is_shown(due: Account, simulator: Simulator) -> None:
    old = due.organization_uuid
    simulator.person(ADA, organization_uuid="moved", organization_name="Moved")

    check()

    due.refresh_from_db()
    assert (due.organization_uuid, due.organization_name) == ("moved", "Moved")
    (changed,) = events("account.organization_changed", "account.profile_changed")
    assert changed[0] == "account.organization_changed"
    assert (changed[1]["old"]["organization_uuid"], changed[1]["new"]["organization_uuid"]) == (
        old,
        "moved",
    )


def test_a_profile_is_asked_for_once_a_day(account: Account, simulator: Simulator) -> None:
    simulator.clear_requests()
    assert account.profile_checked_at is not None
    due_at = account.profile_checked_at + DAY + profiles._offset(account.pk)
    account.credentials.update(expires_at=None)

    check(due_at - timedelta(seconds=1))
    assert asked(simulator) == 0
    check(due_at)
    check(due_at + timedelta(hours=1))
    assert asked(simulator) == 1


def test_accounts_do_not_come_together() -> None:
    offsets = sorted(profiles._offset(account) for account in range(200))

    assert offsets[0] >= timedelta(0)
    assert offsets[-1] < profiles.SPREAD
    assert all(b - a < timedelta(minutes=15) for a, b in zip(offsets, offsets[1:], strict=False))


@pytest.mark.parametrize(
    "change",
    [{"status": "invalid"}, {"status": "inactive"}, {"kind": "setup_token"}, {"ended": True}],
)
def test_it_asks_only_where_an_answer_can_come(
    due: Account, simulator: Simulator, change: dict[str, Any]
) -> None:
    if change.pop("ended", False):
        due.credentials.update(expires_at=timezone.now())
    Account.objects.update(**change)

    check()

    assert asked(simulator) == 0


async def test_two_beats_ask_once(due: Account, simulator: Simulator) -> None:
    simulator.script(PROFILE, delay=0.2)

    read = await asyncio.gather(profiles.check_due(), profiles.check_due())

    assert sorted(read) == [0, 1]
    assert asked(simulator) == 1


def test_a_claim_whose_process_died_lapses(due: Account, simulator: Simulator) -> None:
    now = timezone.now()
    assert profiles._claim(due.pk, now) is not None

    check(now)
    assert asked(simulator) == 0
    check(now + profiles.CLAIM)
    assert asked(simulator) == 1


def test_a_disabled_organisation_makes_the_account_invalid(
    due: Account, simulator: Simulator
) -> None:
    simulator.person(ADA, disabled=True)

    check()
    check()

    due.refresh_from_db()
    assert (due.status, due.reason) == ("invalid", "provider_disabled")
    assert asked(simulator) == 1
    assert [kind for kind, _ in events("account.reject")] == ["account.reject"]


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (
            400,
            {"message": "Held.", "details": {"error_code": "organization_on_hold"}},
            profile_endpoint.OrganizationRefused,
        ),
        (
            401,
            {"message": "OAuth authentication is currently not allowed for this organization."},
            profile_endpoint.OrganizationRefused,
        ),
        (
            403,
            {"message": "OAuth token does not meet scope requirement user:profile"},
            profile_endpoint.ProfileForbidden,
        ),
        (403, {"type": "forbidden"}, profile_endpoint.ProfileUnreadable),
        (500, None, profile_endpoint.ProfileUnreadable),
        (200, {}, profile_endpoint.ProfileUnreadable),
    ],
)
def test_each_refusal_is_told_apart(
    simulator: Simulator, status: int, error: Any, kind: type[Exception]
) -> None:
    simulator.script(PROFILE, status=status, body={"error": error})

    with pytest.raises(profile_endpoint.ProfileUnreadable) as raised:
        asyncio.run(profile_endpoint.read("sk-ant-oat01-one"))

    assert type(raised.value) is kind


def test_an_answer_larger_than_any_profile_is_not_read(simulator: Simulator) -> None:
    body = {"account": {"uuid": "one"}, "more": "x" * answers.LARGEST}
    simulator.script(PROFILE, body=body)

    with pytest.raises(profile_endpoint.ProfileUnreadable):
        asyncio.run(profile_endpoint.read("sk-ant-oat01-one"))


def test_a_login_without_the_scope_is_left_alone_for_a_day(
    due: Account, simulator: Simulator
) -> None:
    text = "OAuth token does not meet scope requirement user:profile"
    simulator.script(PROFILE, status=403, body={"error": {"message": text}}, times=None)

    check()
    check()

    due.refresh_from_db()
    assert (due.status, due.profile_failures, asked(simulator)) == ("active", 0, 1)
    assert events("account.profile_failed") == []


@pytest.mark.parametrize("column", ["profile_checked_at", "profile_not_before"])
def test_a_clock_that_was_set_back_keeps_no_profile_from_being_read(
    due: Account, column: str
) -> None:
    now = timezone.now()
    Account.objects.filter(pk=due.pk).update(**{column: now + 30 * DAY})

    assert check(now) == 1
    assert check(now) == 0


def test_failures_are_asked_again_ever_later_and_journaled_sparingly(
    due: Account, simulator: Simulator
) -> None:
    simulator.script(PROFILE, status=500, times=None)
    now = timezone.now()
    waits = []

    for _ in range(5):
        check(now)
        check(now)
        due.refresh_from_db()
        assert due.profile_not_before is not None
        waits.append((due.profile_not_before - now).total_seconds())
        now = due.profile_not_before

    assert (due.profile_failures, asked(simulator)) == (5, 5)
    assert all(1 <= wait <= 30 * 2**n for n, wait in enumerate(waits))
    failed = [data for _, data in events("account.profile_failed")]
    assert [data["attempt"] for data in failed] == [1, 2, 4]
    assert failed[0] == {"why": "status 500", "attempt": 1, "delay": round(waits[0], 1)}

    simulator.clear_scripts()
    check(now)
    due.refresh_from_db()
    assert (due.profile_failures, due.profile_not_before) == (0, None)


def test_retry_after_is_waited_for(due: Account, simulator: Simulator) -> None:
    simulator.script(PROFILE, status=429, headers={"retry-after": "900"}, body={})
    now = timezone.now()

    check(now)

    due.refresh_from_db()
    assert due.profile_not_before is not None
    assert due.profile_not_before >= now + timedelta(seconds=900)
    assert due.status == "active"


def test_a_login_whose_profile_was_not_read_is_asked_at_once(
    link: Callable[..., Account], simulator: Simulator
) -> None:
    simulator.script(PROFILE, status=429, body={})
    account = link()
    assert (account.plan, account.profile_checked_at) == ("", None)

    check()

    account.refresh_from_db()
    assert (account.plan, account.subscription_status) == ("max", "active")


def test_what_an_answer_leaves_out_is_not_unlearnt(due: Account, simulator: Simulator) -> None:
    body = {"account": {"uuid": due.account_uuid}, "organization": {"uuid": due.organization_uuid}}
    simulator.script(PROFILE, body=body)

    check()

    due.refresh_from_db()
    assert (due.email, due.plan) == (ADA, "max")
    assert events("account.profile_changed") == []


def test_a_profile_of_somebody_else_changes_nothing(due: Account, simulator: Simulator) -> None:
    body = {"account": {"uuid": "other", "email": "eve@example.com"}}
    simulator.script(PROFILE, body=body)

    check()

    due.refresh_from_db()
    assert due.email == ADA


def test_it_asks_through_the_proxy_of_the_account(due: Account, simulator: Simulator) -> None:
    Egress.objects.create(account=due, url="http://127.0.0.1:1")

    check()

    due.refresh_from_db()
    assert (asked(simulator), due.profile_failures, due.status) == (0, 1, "active")
