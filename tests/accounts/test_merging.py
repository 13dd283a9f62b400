"""Two rows that turn out to be one account: one is left, with the better login of the two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from accounts import adding, grants, merging, pool, profiles, tokens
from accounts.enrolment import Login, enrol
from accounts.models import Account, Credential, Egress
from accounts.oauth import Grant
from accounts.renewal import Outcome
from accounts.states import Kind
from events import conditions
from events.models import Event
from relay import ownership
from relay.models import Resource
from sessions_limit.models import ClientKey
from tests.support.simulator import Simulator

ADA = "ada@example.com"
AT_ONCE = pytest.mark.django_db(transaction=True)
pytestmark = pytest.mark.django_db

Pair = tuple[Account, Account]


@pytest.fixture
def nameless(link: Callable[..., Account], simulator: Simulator) -> Account:
    """Return an account of which nobody told whose it is."""
    simulator.script({"path": "/api/oauth/profile"}, status=500)
    simulator.script({"path": "/v1/oauth/token"}, omit=["account", "organization"])
    return link(name="first")


@pytest.fixture
def linked(nameless: Account, link: Callable[..., Account]) -> Pair:
    """Return two rows of the same account: one nameless, the other linked since."""
    return nameless, link(name="second")


@pytest.fixture
def pair(db: None) -> Pair:
    """Return the same of logins that nobody has made."""
    return enrolled("first", timezone.now() - timedelta(hours=1)), enrolled(
        "second", timezone.now(), account_uuid="ada", organization_uuid="hers"
    )


def enrolled(name: str, now: datetime, **whose: str) -> Account:
    grant = Grant(f"sk-ant-oat01-{name}", f"sk-ant-ort01-{name}", now + timedelta(hours=8))
    login = Login(kind=Kind.OAUTH, grant=grant, secret_hash=name, **whose)
    return enrol(login, name=name, by="ada", now=now)


def check() -> None:
    Account.objects.update(profile_not_before=None)
    asyncio.run(profiles.check_due())


def left() -> Account:
    return Account.objects.select_related("credential").get(deleted_at=None)


@AT_ONCE
def test_the_first_row_stays_and_goes_on_with_the_last_login(
    linked: Pair, simulator: Simulator
) -> None:
    first, second = linked
    secrets = {row.access_token for row in Credential.objects.all()}

    check()
    check()

    kept = left()
    ada = simulator.accounts()[ADA]
    assert (kept.pk, kept.name, kept.status) == (first.pk, "first", "active")
    assert (kept.account_uuid, kept.plan) == (ada["account_uuid"], "max")
    assert (kept.credential_id, kept.grant_ends_at) == (second.credential_id, second.grant_ends_at)
    assert sorted(kept.credentials.values_list("grant", "generation")) == [(1, 1), (2, 1)]
    assert {row.access_token for row in Credential.objects.all()} == secrets
    (member,) = pool.load().members
    assert member.secret in secrets
    assert Account.objects.get(pk=second.pk).name == f"second (merged, {second.pk})"


def test_a_merge_is_journaled_once_on_both(pair: Pair) -> None:
    first, second = pair

    for _ in range(2):
        merging.merge(second.pk, first.pk, by="ada", now=timezone.now())

    (merged,) = Event.objects.filter(kind="account.merged")
    moved = {"duplicate": second.pk, "name": "second", "took_its_login": True}
    assert (merged.subject, merged.by, merged.data) == (first.subject, "ada", moved)
    (removed,) = Event.objects.filter(kind="account.removed")
    assert (removed.subject, removed.data["merged_into"]) == (second.subject, first.pk)
    (relinked,) = Event.objects.filter(kind="account.relink")
    assert (relinked.subject, relinked.data["grant"]) == (first.subject, 2)


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        ({}, {}, "second"),
        ({"later": True}, {}, "first"),
        ({}, {"status": "invalid", "reason": "refresh_rejected"}, "first"),
        ({"status": "invalid", "later": True}, {}, "second"),
        ({}, {"ended": True}, "first"),
        ({"status": "invalid"}, {"status": "invalid"}, "second"),
    ],
)
def test_a_living_login_wins_and_then_the_last(
    pair: Pair, first: dict[str, Any], second: dict[str, Any], winner: str
) -> None:
    now = timezone.now()
    for account, change in zip(pair, (first, second), strict=True):
        if change.pop("ended", False):
            account.credentials.update(refresh_token=None, expires_at=now)
        if change.pop("later", False):
            change["grant_started_at"] = now + timedelta(hours=1)
        Account.objects.filter(pk=account.pk).update(**change)

    assert merging.merge(pair[1].pk, pair[0].pk, by="ada", now=now)

    kept = left()
    by_name = {account.name: account for account in pair}
    assert kept.credential_id == by_name[winner].credential_id
    assert kept.status == ("active" if winner == "second" else pair[0].status)


def test_a_switched_off_account_stays_switched_off(pair: Pair) -> None:
    first, second = pair
    Account.objects.filter(pk=first.pk).update(status="inactive", reason="admin")

    merging.merge(second.pk, first.pk, by="ada", now=timezone.now())

    assert (left().status, left().reason) == ("inactive", "admin")
    assert left().credential_id == second.credential_id


@pytest.mark.parametrize("row", [0, 1])
def test_nothing_is_merged_while_a_refresh_is_under_way(pair: Pair, row: int) -> None:
    now = timezone.now()
    busy = Account.objects.filter(pk=pair[row].pk)
    busy.update(lease_owner="somebody", lease_until=now + timedelta(seconds=60))

    assert not merging.merge(pair[1].pk, pair[0].pk, by="ada", now=now)
    assert Account.objects.filter(deleted_at=None).count() == 2

    assert merging.merge(pair[1].pk, pair[0].pk, by="ada", now=now + timedelta(seconds=60))
    assert left().pk == pair[0].pk


@AT_ONCE
def test_the_profile_is_asked_again_after_a_refresh_that_was_in_the_way(linked: Pair) -> None:
    busy = Account.objects.filter(pk=linked[1].pk)
    busy.update(lease_owner="somebody", lease_until=timezone.now() + timedelta(seconds=60))

    check()
    assert Account.objects.filter(deleted_at=None).count() == 2
    assert Event.objects.get(kind="account.profile_failed").data["why"] == "is being refreshed"

    busy.update(lease_owner="", lease_until=None)
    check()
    assert left().pk == linked[0].pk


def test_a_pair_that_is_not_stored_yet_is_waited_for(pair: Pair) -> None:
    first, second = pair
    row = Account.objects.filter(pk=second.pk)
    row.update(intent_credential=second.credential_id)
    now = timezone.now()

    assert not merging.merge(second.pk, first.pk, by="ada", now=now)

    row.update(intent_credential=None)
    assert merging.merge(second.pk, first.pk, by="ada", now=now)


@AT_ONCE
def test_a_refresh_that_tells_whose_it_is_merges_too(linked: Pair, simulator: Simulator) -> None:
    first, second = linked
    assert first.credential_id is not None

    async def renew() -> Outcome:
        renewal = await tokens.renewed(first.pk, first.credential_id, rejected=True)  # type: ignore[arg-type]
        await tokens.settled()
        return renewal.outcome

    assert asyncio.run(renew()) is Outcome.RENEWED

    assert left().pk == first.pk
    assert left().credential_id == second.credential_id
    assert left().account_uuid == simulator.accounts()[ADA]["account_uuid"]
    assert Credential.objects.filter(account=first).count() == 3


@AT_ONCE
def test_only_one_of_two_processes_merges(pair: Pair) -> None:
    first, second = pair
    now = timezone.now()

    def merge(_: int) -> bool:
        try:
            return merging.merge(second.pk, first.pk, by="ada", now=now)
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as workers:
        assert sorted(workers.map(merge, range(3))) == [False, False, True]
    assert Event.objects.filter(kind="account.merged").count() == 1


def test_batches_and_files_are_found_afterwards(pair: Pair) -> None:
    first, second = pair
    key = ClientKey.objects.create(name="k", hash="h" * 64, created_by="ada")
    ownership.bind("batch", "msgbatch_1", second.pk, key.pk)

    merging.merge(second.pk, first.pk, by="ada", now=timezone.now())

    assert ownership.account_of("batch", "msgbatch_1", key.pk) == first.pk


def test_only_what_belongs_to_an_account_moves() -> None:
    assert [relation.related_model for relation in merging._relations()] == [Resource]


@pytest.mark.parametrize(("own", "used"), [(True, "first"), (False, "second")])
def test_an_account_never_loses_its_proxy(pair: Pair, own: bool, used: str) -> None:
    first, second = pair
    Egress.objects.create(account=second, url="http://second.test")
    if own:
        Egress.objects.create(account=first, url="http://first.test")

    merging.merge(second.pk, first.pk, by="ada", now=timezone.now())

    assert Egress.objects.get().url == f"http://{used}.test"
    assert Egress.objects.get().account_id == first.pk


def test_an_announced_end_is_forgotten_with_the_duplicate(pair: Pair) -> None:
    first, second = pair
    conditions.begin(grants.ENDING, second.subject, now=timezone.now())

    merging.merge(second.pk, first.pk, by="ada", now=timezone.now())

    assert not conditions.holds(grants.ENDING, second.subject)


@AT_ONCE
def test_an_organisation_that_became_that_of_another_row_is_merged(
    link: Callable[..., Account], simulator: Simulator
) -> None:
    first = link(name="first")
    simulator.person(ADA, organization_uuid=str(uuid4()))
    second = link(name="second")
    assert first.pk != second.pk
    Account.objects.filter(pk=first.pk).update(profile_checked_at=None)

    check()

    assert (left().pk, left().organization_uuid) == (first.pk, second.organization_uuid)


def test_a_file_that_is_added_again_with_a_readable_profile_makes_no_second_row(
    nameless: Account,
) -> None:
    credential = nameless.credential
    assert credential is not None
    text = (
        f'{{"claudeAiOauth": {{"accessToken": "{credential.access_token}", '
        f'"refreshToken": "{credential.refresh_token}"}}}}'
    )

    with pytest.raises(adding.AlreadyLinked):
        adding.add_credentials_file("again", text, by="ada")

    assert left().pk == nameless.pk
