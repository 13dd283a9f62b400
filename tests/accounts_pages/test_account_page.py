"""The account pages: what is said of an account, what can be done, and hostile texts as text."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts import adding, cards
from accounts.cards import Step
from accounts.models import Account, LimitWindow
from accounts.states import Kind, Status, Trigger
from events.models import Event
from tests.support.simulator import Simulator

HOSTILE = "<script>alert(1)</script>\"' onclick=x"
pytestmark = pytest.mark.django_db


@pytest.fixture
def account() -> Account:
    return adding.add_secret(Kind.API_KEY, "console", "sk-ant-api03-one", "anna")


def test_an_empty_pool_says_the_next_step(admin_client: Client) -> None:
    text = admin_client.get("/accounts/").content.decode()

    assert "No account yet" in text
    assert "/accounts/link/" in text


@pytest.mark.parametrize(
    ("status", "kind", "reason", "step"),
    [
        (Status.ACTIVE, Kind.OAUTH, "", Step.NONE),
        (Status.RATE_LIMITED, Kind.OAUTH, "limit_reached (5h)", Step.WAIT),
        (Status.INACTIVE, Kind.OAUTH, "idle", Step.ENABLE),
        (Status.INACTIVE, Kind.API_KEY, "admin", Step.ENABLE),
        (Status.INVALID, Kind.OAUTH, "refresh_rejected", Step.RELINK),
        (Status.INVALID, Kind.API_KEY, "auth_rejected", Step.REPLACE),
        (Status.INVALID, Kind.SETUP_TOKEN, "expired", Step.REPLACE),
        (Status.INVALID, Kind.OAUTH, "provider_disabled", Step.OWNER),
    ],
)
def test_every_state_names_the_step_that_heals_it(
    status: Status, kind: Kind, reason: str, step: Step
) -> None:
    assert cards.step(status, kind, reason) is step


def test_a_wait_is_cleared_and_an_account_cut(admin_client: Client, account: Account) -> None:
    until = timezone.now() + timedelta(hours=2)
    account.apply(Trigger.LIMIT, by="relay", reason="limit_reached (5h)", limited_until=until)
    assert f"/accounts/{account.pk}/clear/" in admin_client.get("/accounts/").content.decode()

    cleared = admin_client.post(f"/accounts/{account.pk}/clear/", follow=True).content.decode()
    cut = admin_client.post(f"/accounts/{account.pk}/disable/", {"cut": "1"}, follow=True)

    assert "waits for nothing any more" in cleared
    assert f"/accounts/{account.pk}/clear/" not in cleared
    assert "what it served has ended" in cut.content.decode()
    assert Account.objects.get().reason == "cut"


def test_a_state_is_shown_with_its_reason_and_its_end(
    admin_client: Client, account: Account
) -> None:
    until = timezone.now() + timedelta(hours=2)
    account.apply(Trigger.LIMIT, by="relay", reason="limit_reached (5h)", limited_until=until)

    text = admin_client.get("/accounts/").content.decode()

    assert "rate limited" in text
    assert "What its plan allows is spent: the 5-hour window." in text
    assert f'datetime="{until.isoformat(timespec="seconds")}"' in text


def test_windows_are_bars_and_a_spent_or_empty_one_is_never_hidden(account: Account) -> None:
    now = timezone.now()
    later, earlier = now + timedelta(hours=1), now - timedelta(hours=1)
    for name, used, reset in (("5h", 1.01, later), ("7d", 0.0, later), ("7d_oi", 0.5, earlier)):
        LimitWindow.objects.create(
            account=account, name=name, utilization=used, reset_at=reset, observed_at=now
        )

    five, seven, fable = cards.windows(Kind.OAUTH, account.windows.all(), now)

    assert (five.percent, five.value) == (101, "1.000")
    assert (seven.percent, seven.utilization) == (0, 0.0)
    assert (fable.utilization, fable.is_over) == (None, True)


def test_a_limit_that_has_passed_is_no_bar() -> None:
    now = timezone.now()
    past, ahead = now - timedelta(seconds=1), now + timedelta(seconds=1)

    usable = [
        cards.is_usable(Account(status="rate_limited", limited_until=past), now),
        cards.is_usable(Account(status="rate_limited", limited_until=ahead), now),
        cards.is_usable(Account(status="active", cooldown_until=ahead), now),
    ]

    assert usable == [True, False, False]


def test_what_must_be_healed_comes_first_and_what_was_switched_off_is_no_trouble() -> None:
    for name, status, reason in (
        ("limited", Status.RATE_LIMITED, "limit_reached (5h)"),
        ("off", Status.INACTIVE, "admin"),
        ("dead", Status.INVALID, "auth_rejected"),
    ):
        account = adding.add_secret(Kind.API_KEY, name, f"sk-ant-api03-{name}", by="ann")
        Account.objects.filter(pk=account.pk).update(status=status, reason=reason)

    found = cards.troubled(cards.load())

    assert [card.account.name for card in found] == ["dead", "limited"]


def test_an_account_is_disabled_and_enabled(admin_client: Client, account: Account) -> None:
    off = admin_client.post(f"/accounts/{account.pk}/disable/", follow=True).content.decode()
    on = admin_client.post(f"/accounts/{account.pk}/enable/", follow=True).content.decode()

    assert "is disabled" in off
    assert "An operator switched it off." in off
    assert "is enabled" in on
    assert Event.objects.filter(kind="account.disable", by="admin").exists()


def test_a_second_tab_sees_what_happened(admin_client: Client, account: Account) -> None:
    for _ in range(2):
        answer = admin_client.post(f"/accounts/{account.pk}/disable/", follow=True)

    assert "there is nothing to disable" in answer.content.decode()
    assert Event.objects.filter(kind="account.disable").count() == 1


def test_htmx_gets_the_region_and_the_message(admin_client: Client, account: Account) -> None:
    region = {"hx-request": "true"}

    listed = admin_client.get("/accounts/", headers=region).content.decode()
    acted = admin_client.post(f"/accounts/{account.pk}/disable/", headers=region).content.decode()

    assert "<html" not in listed + acted
    assert 'id="accounts"' in acted
    assert 'hx-swap-oob="innerHTML"' in acted
    assert "is disabled" in acted


def test_an_api_key_has_nothing_to_refresh(
    transactional_db: None, admin_client: Client, account: Account
) -> None:
    answer = admin_client.post(f"/accounts/{account.pk}/refresh/", follow=True)

    assert "there is nothing to refresh" in answer.content.decode()


def test_removing_needs_the_name(admin_client: Client, account: Account) -> None:
    wrong = admin_client.post(f"/accounts/{account.pk}/remove/", {"name": "consol"})
    kept = Account.objects.get().deleted_at
    right = admin_client.post(f"/accounts/{account.pk}/remove/", {"name": "console"}, follow=True)

    assert "Nothing was removed" in wrong.content.decode()
    assert kept is None
    assert "is removed" in right.content.decode()
    assert Account.objects.get().deleted_at is not None
    assert "No account yet" in admin_client.get("/accounts/").content.decode()


def test_an_api_key_is_added_without_the_tick(admin_client: Client) -> None:
    given = {"kind": "api_key", "name": "console", "secret": "sk-ant-api03-two"}

    answer = admin_client.post("/accounts/add/", given, follow=True)

    assert "“console” is in the pool." in answer.content.decode()
    assert Account.objects.get().kind == "api_key"


def test_the_first_account_leads_on_to_the_first_key(admin_client: Client) -> None:
    given = {"kind": Kind.API_KEY, "name": "first", "secret": "sk-ant-api03-one"}
    first = admin_client.post("/accounts/add/", given, follow=True).content.decode()
    second = admin_client.post(
        "/accounts/add/", given | {"name": "second", "secret": "sk-ant-api03-two"}
    )

    assert "“first” is in the pool." in first
    assert "Create a key" in first
    assert second.headers["location"] == "/accounts/"


def test_a_persons_token_needs_the_tick(admin_client: Client) -> None:
    given = {"kind": "setup_token", "name": "ci", "secret": "sk-ant-oat01-two"}

    refused = admin_client.post("/accounts/add/", given)
    taken = admin_client.post("/accounts/add/", given | {"agree": "on"})

    assert "Tick the box first" in refused.content.decode()
    assert taken.status_code == 302


def test_a_persons_token_is_no_api_key_unless_the_box_is_ticked(admin_client: Client) -> None:
    given = {"kind": Kind.API_KEY, "name": "mine", "secret": "sk-ant-oat01-" + "a" * 40}
    refused = admin_client.post("/accounts/add/", given)
    admin_client.post("/accounts/add/", given | {"name": "ticked", "agree": "on"})

    assert "This looks like a person’s token" in refused.content.decode()
    assert Account.objects.get().name == "ticked"


def test_a_secret_is_never_repeated_by_the_form(admin_client: Client, account: Account) -> None:
    given = {"kind": "api_key", "name": "console", "secret": "sk-ant-api03-three"}

    answer = admin_client.post("/accounts/add/", given)

    assert "Another account is called console." in answer.content.decode()
    assert "sk-ant-api03-three" not in answer.content.decode()


def test_a_credentials_file_is_added_with_a_warning(
    admin_client: Client, simulator: Simulator
) -> None:
    login = {"accessToken": "sk-ant-oat01-x", "refreshToken": "sk-ant-ort01-x", "scopes": []}
    given = {"kind": "credentials_file", "name": "file", "agree": "on"}

    wrong = admin_client.post("/accounts/add/", given | {"secret": "not json"})
    text = json.dumps({"claudeAiOauth": login})
    right = admin_client.post("/accounts/add/", given | {"secret": text}, follow=True)

    assert "it is not JSON" in wrong.content.decode()
    assert "This login is now held twice." in right.content.decode()


def test_hostile_texts_are_shown_as_text(admin_client: Client, account: Account) -> None:
    fields = {"name": HOSTILE, "email": HOSTILE, "organization_name": HOSTILE, "plan": "<u>"}
    Account.objects.update(status="invalid", reason=HOSTILE, **fields)
    LimitWindow.objects.create(account=account, name="<u>5h", observed_at=timezone.now())

    for path in ("/", "/accounts/", f"/accounts/{account.pk}/remove/", "/admin/accounts/account/"):
        text = admin_client.get(path).content.decode()
        assert "<script>alert" not in text
        assert "<u>" not in text
        assert "&lt;script&gt;alert" in text


def test_two_hundred_accounts_cost_no_query_each(
    admin_client: Client, django_assert_max_num_queries: object
) -> None:
    Account.objects.bulk_create(Account(name=f"a{n}", kind="api_key") for n in range(200))

    with django_assert_max_num_queries(9):  # type: ignore[operator]
        admin_client.get("/accounts/")
