"""Adding keys, setup tokens and credentials files, most of them hostile."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import adding, linking
from accounts.models import Account
from accounts.pool import load
from tests.accounts.conftest import SESSION
from tests.support.simulator import Simulator

ADA = "ada@example.com"
pytestmark = pytest.mark.django_db


def credentials(**changes: Any) -> str:
    ends_at = (timezone.now() + timedelta(hours=5)).timestamp()
    login = {
        "accessToken": "sk-ant-oat01-access",
        "refreshToken": "sk-ant-ort01-refresh",
        "expiresAt": int(ends_at * 1000),
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
    }
    return json.dumps({"claudeAiOauth": login | changes})


@pytest.mark.parametrize("kind", ["api_key", "setup_token"])
def test_a_secret_makes_an_account_that_serves(kind: str) -> None:
    account = adding.add_secret(kind, "mine", " secret-of-any-shape\n", by="ada")

    (member,) = load().members
    assert (member.name, member.kind, member.secret) == ("mine", kind, "secret-of-any-shape")
    assert (member.expires_at, account.status) == (None, "active")


@pytest.mark.parametrize(
    "secret",
    ["", "  ", "two words", "a\r\nx-evil: 1", "schlüssel", "nul\0", "x" * 5000, "tab\tbed"],
)
def test_what_no_header_can_carry_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(adding.BadSecret) as raised:
        adding.add_secret("api_key", "mine", secret, by="ada")

    assert len(str(raised.value)) < 100
    assert not Account.objects.exists()


def test_the_same_secret_is_not_added_twice() -> None:
    adding.add_secret("api_key", "first", "one-secret", by="ada")

    with pytest.raises(adding.AlreadyLinked, match="as first"):
        adding.add_secret("api_key", "second", "one-secret", by="ada")


def test_the_same_secret_revives_its_invalid_account() -> None:
    first = adding.add_secret("api_key", "first", "one-secret", by="ada")
    Account.objects.update(status="invalid", reason="auth_rejected")

    second = adding.add_secret("api_key", "ignored", "one-secret", by="ada")

    assert (second.pk, second.name, second.status) == (first.pk, "first", "active")


def test_a_name_is_needed_and_is_unique() -> None:
    adding.add_secret("api_key", "mine", "one", by="ada")

    with pytest.raises(adding.NameTaken):
        adding.add_secret("api_key", "mine", "two", by="ada")
    with pytest.raises(adding.NameTaken):
        adding.add_secret("api_key", " \n", "three", by="ada")


def test_a_name_is_cleaned() -> None:
    account = adding.add_secret("api_key", "a\x1b[31m\nb" + "x" * 200, "one", by="ada")

    assert account.name.startswith("a [31m b")
    assert len(account.name) == 100


def test_a_credentials_file_is_known_by_its_profile(simulator: Simulator) -> None:
    simulator.person(ADA)
    flow = linking.begin(by="ada", session=SESSION)
    linking.complete(flow.id, simulator.authorize(flow.url, ADA), session=SESSION)
    linked = linking.confirm(flow.id, session=SESSION, by="ada")
    assert linked.credential is not None
    text = credentials(accessToken=linked.credential.access_token)

    again = adding.add_credentials_file("another name", text, by="ada")

    assert (again.pk, again.name) == (linked.pk, ADA)
    assert again.credential is not None
    assert (again.credential.grant, again.credential.generation) == (2, 1)


def test_a_credentials_file_whose_profile_cannot_be_read_is_added(simulator: Simulator) -> None:
    account = adding.add_credentials_file("mine", credentials(), by="ada")

    assert (account.name, account.kind, account.account_uuid) == ("mine", "oauth", "")
    assert account.credential is not None
    assert account.credential.refresh_token == "sk-ant-ort01-refresh"
    left = account.credential.expires_at - timezone.now()
    assert timedelta(hours=4, minutes=59) < left < timedelta(hours=5)
    assert len(simulator.requests("/api/oauth/profile")) == 1


@pytest.mark.parametrize("odd", [None, "soon", -1, 10**30, True, 1.5])
def test_an_odd_end_in_a_credentials_file_counts_as_unknown(odd: object) -> None:
    account = adding.add_credentials_file("mine", credentials(expiresAt=odd), by="ada")

    assert account.credential is not None
    assert account.credential.expires_at is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"claudeAiOauth": "text"}',
        "[" * 100_000,
        "x" * 100_000,
        '{"claudeAiOauth": {"accessToken": 5}}',
        '{"claudeAiOauth": {"accessToken": "a b"}}',
        '{"claudeAiOauth": {"accessToken": "fine", "refreshToken": ["x"]}}',
        '{"claudeAiOauth": {"accessToken": "fine", "refreshToken": "a\\r\\nb"}}',
    ],
)
def test_what_is_no_credentials_file_is_refused(text: str) -> None:
    with pytest.raises((adding.BadFile, adding.BadSecret)):
        adding.add_credentials_file("mine", text, by="ada")

    assert not Account.objects.exists()
