"""The settings of an account are changed on a page that says what cannot be, and no secret."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts import adding, egress
from accounts.models import Account
from accounts.states import Kind
from events.models import Event

PROXY = "http://ann:hush@10.0.0.1:3128"
pytestmark = pytest.mark.django_db


@pytest.fixture
def account() -> Account:
    return adding.add_secret(Kind.API_KEY, "console", "sk-ant-api03-one", "anna")


@pytest.fixture
def endpoint() -> Account:
    return adding.add_compatible(
        name="deep",
        base_url="https://1.1.1.1",
        auth="bearer",
        secret="sk-hush",
        model_map={"claude-*": "deep-flash"},
        by="anna",
    )


def fields(**changes: Any) -> dict[str, Any]:
    base = {"name": "console", "priority": 50, "weight": 1, "never_overage": "on"}
    return base | changes


def of_endpoint(**changes: Any) -> dict[str, Any]:
    base = {"base_url": "https://1.1.1.1", "auth": "bearer", "forwards_betas": "on"}
    return fields(name="deep", model_map="claude-* = deep-flash\r\n") | base | changes


def page(account: Account) -> str:
    return f"/accounts/{account.pk}/settings/"


def test_the_form_shows_what_holds_and_saves_what_is_changed(
    admin_client: Client, account: Account
) -> None:
    given = fields(
        name="the console",
        labels="team-a, nightly team-a",
        priority=10,
        weight=20,
        max_in_flight=4,
        requests_per_minute=60,
        tokens_per_minute=90_000,
        leave_at_percent=80,
        pinned="on",
    )
    del given["never_overage"]

    answer = admin_client.post(page(account), given, follow=True)
    shown = admin_client.get(page(account)).content.decode()

    assert answer.redirect_chain[0][0] == f"/accounts/{account.pk}/"
    assert "The settings of “the console” are changed." in answer.content.decode()
    account.refresh_from_db()
    assert account.labels == ["team-a", "nightly"]
    assert (account.priority, account.weight, account.max_in_flight) == (10, 20, 4)
    assert (account.requests_per_minute, account.tokens_per_minute) == (60, 90_000)
    assert (account.leave_at_percent, account.never_overage, account.pinned) == (80, False, True)
    assert 'value="team-a nightly"' in shown
    assert 'value="90000"' in shown
    assert Event.objects.get(kind="account.updated").by == "admin"


def test_an_emptied_limit_is_lifted(admin_client: Client, account: Account) -> None:
    Account.objects.update(max_in_flight=4, leave_at_percent=80, labels=["a"])

    admin_client.post(page(account), fields())

    account.refresh_from_db()
    assert (account.max_in_flight, account.leave_at_percent, account.labels) == (None, None, [])


def test_saving_what_holds_changes_nothing(admin_client: Client, endpoint: Account) -> None:
    before = Event.objects.count()

    answer = admin_client.post(page(endpoint), of_endpoint(), follow=True)

    assert "Nothing was changed for “deep”." in answer.content.decode()
    assert Event.objects.count() == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": ""}, "required"),
        ({"name": "other"}, "Another account has this name."),
        ({"priority": "first"}, "whole number"),
        ({"weight": 101}, "less than or equal to 100"),
        ({"labels": "Größe"}, "is not a label"),
        ({"max_in_flight": 10_001}, "from 1 to 10000"),
        ({"leave_at_percent": 0}, "greater than or equal to 1"),
        ({"tokens_per_minute": 10**12}, "whole number from"),
        ({"proxy": "http://ann:hush@10.0.0.1"}, "must name the port"),
    ],
)
def test_what_cannot_be_is_said_at_its_field_and_nothing_is_changed(
    admin_client: Client, account: Account, wrong: dict[str, Any], said: str
) -> None:
    adding.add_secret(Kind.API_KEY, "other", "sk-ant-api03-two", "anna")

    answer = admin_client.post(page(account), fields(priority=7) | wrong)

    assert answer.status_code == 200
    text = answer.content.decode()
    assert said in text.partition('<ul class="errorlist"')[2]
    assert f'id="id_{next(iter(wrong))}_error"' in text
    assert "hush" not in text
    account.refresh_from_db()
    assert account.priority == 50


def test_another_place_asks_for_the_secret_again(admin_client: Client, endpoint: Account) -> None:
    moved = of_endpoint(base_url="https://1.0.0.1")

    refused = admin_client.post(page(endpoint), moved).content.decode()
    kept = Account.objects.get().base_url
    taken = admin_client.post(page(endpoint), moved | {"secret": "sk-hush-2"}, follow=True)

    assert "Give the secret again" in refused
    assert kept == "https://1.1.1.1"
    assert "are changed" in taken.content.decode()
    assert Account.objects.get().base_url == "https://1.0.0.1"
    assert "sk-hush" not in refused + taken.content.decode()


def test_a_map_and_the_betas_are_changed_without_the_secret(
    admin_client: Client, endpoint: Account
) -> None:
    given = of_endpoint(model_map="claude-opus-* = deep-pro")
    del given["forwards_betas"]

    wrong = admin_client.post(page(endpoint), of_endpoint(model_map="nonsense"))
    admin_client.post(page(endpoint), given)

    assert "is not like" in wrong.content.decode()
    shown = admin_client.get(f"/accounts/{endpoint.pk}/").content.decode()
    assert "is asked for as <code>deep-pro</code>" in shown
    endpoint.refresh_from_db()
    assert endpoint.model_map == {"claude-opus-*": "deep-pro"}
    assert not endpoint.forwards_betas


def test_a_proxy_is_set_kept_and_ended_and_shown_only_as_a_host(
    admin_client: Client, account: Account
) -> None:
    admin_client.post(page(account), fields(proxy=PROXY))
    shown = admin_client.get(page(account)).content.decode()
    admin_client.post(page(account), fields(priority=3))
    kept = egress.shown(account)
    admin_client.post(page(account), fields(priority=3, no_proxy="on"))

    assert "http://10.0.0.1:3128" in shown
    assert "hush" not in shown
    assert kept == "http://10.0.0.1:3128"
    assert egress.of(account) == ""
