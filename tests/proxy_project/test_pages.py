"""What holds for every page: who may see it, how it is guarded, that looking changes nothing."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.utils import timezone
from django.views.defaults import server_error

from accounts import adding
from accounts.models import Account, Credential, LimitWindow, LinkFlow
from accounts.states import Kind
from events.models import Event
from proxy_project import tokens
from proxy_project.models import AdminToken
from sessions_limit import keys
from sessions_limit.models import ClientKey, ClientSession
from usage.models import RequestRecord

POLICY = "default-src 'self'"
SECRET = "sk-ant-api03-a-secret-that-nobody-may-see"
PAGES = [
    "/",
    "/overview/",
    "/accounts/",
    "/accounts/add/",
    "/accounts/link/",
    "/accounts/{account}/",
    "/accounts/{account}/settings/",
    "/accounts/{account}/cut/",
    "/accounts/{account}/remove/",
    "/keys/",
    "/keys/create/",
    "/keys/{key}/",
    "/keys/{key}/terms/",
    "/keys/{key}/rotate/",
    "/keys/{key}/revoke/",
    "/sessions/",
    "/sessions/{session}/revoke/",
    "/sessions/revoke/key/{key}/",
    "/sessions/revoke/address/192.0.2.1/",
    "/sessions/revoke/everything/",
    "/tokens/",
    "/tokens/{token}/revoke/",
]
ADMIN = [
    "/admin/",
    "/admin/accounts/account/",
    "/admin/accounts/account/{account}/change/",
    "/admin/accounts/credential/",
    "/admin/accounts/credential/{credential}/change/",
    "/admin/accounts/limitwindow/",
    "/admin/accounts/linkflow/",
    "/admin/events/event/",
    "/admin/sessions_limit/clientkey/",
    "/admin/sessions_limit/clientkey/{key}/change/",
    "/admin/usage/requestrecord/",
]
ACTIONS = [
    "/accounts/{account}/enable/",
    "/accounts/{account}/disable/",
    "/accounts/{account}/refresh/",
    "/accounts/{account}/retry/",
    "/accounts/{account}/test/",
    "/keys/{key}/enable/",
    "/keys/{key}/disable/",
    "/tokens/create/",
    "/logout/",
]
pytestmark = pytest.mark.django_db


@pytest.fixture
def admin_user(db: None) -> User:
    """An operator without a password: hashing one takes longer than a page."""
    return User.objects.create(username="admin", is_staff=True, is_superuser=True)


@pytest.fixture
def password(admin_user: User) -> str:
    admin_user.set_password("password")
    admin_user.save()
    return "password"


@pytest.fixture
def ids() -> dict[str, object]:
    account = adding.add_secret(Kind.API_KEY, "console", SECRET, "anna")
    LimitWindow.objects.create(account=account, name="5h", observed_at=timezone.now())
    key, _ = keys.create("laptop", "anna")
    token, _ = tokens.create("deploy", "anna")
    session = ClientSession.objects.create(
        uid="0123456789abcdef",
        key=key,
        client=f"key:{key.pk}",
        session="s",
        started_at=timezone.now(),
        last_seen_at=timezone.now(),
    )
    return {
        "account": account.pk,
        "key": key.pk,
        "token": token.pk,
        "session": session.uid,
        "credential": account.credential_id,
    }


@pytest.mark.parametrize("page", PAGES + ADMIN + ACTIONS)
def test_a_page_needs_a_sign_in(client: Client, ids: dict[str, object], page: str) -> None:
    path = page.format(**ids)

    answer = client.post(path, follow=True) if page in ACTIONS else client.get(path, follow=True)

    assert answer.redirect_chain[-1][0].startswith("/login/")
    assert "<h1>Sign in</h1>" in answer.content.decode()


@pytest.mark.parametrize("page", PAGES + ADMIN)
def test_a_user_who_is_no_operator_sees_nothing(
    client: Client, ids: dict[str, object], page: str
) -> None:
    client.force_login(User.objects.create_user("guest"))

    assert client.get(page.format(**ids)).status_code == 302


@pytest.mark.parametrize("page", [*PAGES, *ADMIN, "/login/", "/setup/", "/nothing/"])
def test_a_page_has_the_whole_policy_and_nothing_inline(
    admin_client: Client, ids: dict[str, object], page: str
) -> None:
    answer = admin_client.get(page.format(**ids))

    text = answer.content.decode()
    policy = answer.headers["content-security-policy"]
    assert POLICY in policy
    assert "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>\s*\S|<style| style=|\son\w+=", text)


@pytest.mark.parametrize("page", PAGES + ADMIN)
def test_looking_changes_nothing(admin_client: Client, ids: dict[str, object], page: str) -> None:
    before = _everything()

    answer = admin_client.get(page.format(**ids))

    assert answer.status_code == 200
    assert _everything() == before


@pytest.mark.parametrize("page", ACTIONS)
def test_an_action_is_not_done_by_a_link(
    admin_client: Client, ids: dict[str, object], page: str
) -> None:
    before = _everything()

    assert admin_client.get(page.format(**ids)).status_code in (302, 405)
    assert _everything() == before


@pytest.mark.parametrize("page", [page for page in ACTIONS if page != "/logout/"])
def test_a_button_pressed_after_the_session_ended_leads_back_to_a_page(
    client: Client, admin_user: User, ids: dict[str, object], page: str
) -> None:
    sent_away = client.post(page.format(**ids)).headers["location"]
    client.force_login(admin_user)

    answer = client.get(sent_away.partition("next=")[2], follow=True)

    assert sent_away.startswith("/login/?next=")
    assert answer.status_code == 200


@pytest.mark.parametrize("page", ACTIONS)
def test_an_action_needs_the_forms_token(
    admin_user: User, ids: dict[str, object], page: str
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    before = _everything()

    answer = client.post(page.format(**ids), {"name": "stolen"})

    assert answer.status_code == 403
    assert "The form is too old" in answer.content.decode()
    assert _everything() == before


@pytest.mark.parametrize("page", PAGES + ADMIN)
def test_no_page_shows_a_secret_or_a_hash(
    admin_client: Client, ids: dict[str, object], page: str
) -> None:
    text = admin_client.get(page.format(**ids)).content.decode()

    sealed = Credential.objects.get().__dict__["access_token"]
    hidden = [SECRET, sealed, ClientKey.objects.get().hash, Account.objects.get().secret_hash]
    hidden.append(AdminToken.objects.get().hash)
    assert not [value for value in hidden if value in text]


@pytest.mark.parametrize(
    "lookup",
    [
        "accounts/account/?secret_hash__startswith=a",
        "accounts/credential/?access_token__startswith=a",
        "accounts/linkflow/?session__startswith=a",
        "sessions_limit/clientkey/?hash__startswith=a",
        "usage/requestrecord/?key__hash__startswith=a",
    ],
)
def test_no_hidden_column_can_be_guessed_by_filtering(admin_client: Client, lookup: str) -> None:
    assert admin_client.get(f"/admin/{lookup}").status_code == 400


@pytest.mark.parametrize("page", ["account", "credential", "limitwindow", "linkflow"])
def test_admin_neither_adds_nor_edits_nor_deletes_accounts(
    admin_client: Client, ids: dict[str, object], page: str
) -> None:
    base = f"/admin/accounts/{page}/"

    assert admin_client.get(f"{base}add/").status_code == 403
    if page in ids:
        assert admin_client.post(f"{base}{ids[page]}/change/", {}).status_code == 403
        assert admin_client.post(f"{base}{ids[page]}/delete/", {}).status_code == 403


def test_admin_moves_accounts_and_keys_by_the_verbs(
    admin_client: Client, ids: dict[str, object]
) -> None:
    disable = {"action": "disable", "_selected_action": ids["account"]}
    revoke = {"action": "revoke", "_selected_action": ids["key"], "confirmed": "yes"}

    admin_client.post("/admin/accounts/account/", disable)
    admin_client.post("/admin/sessions_limit/clientkey/", revoke)

    assert Account.objects.get().status == "inactive"
    assert ClientKey.objects.get().revoked_at is not None
    assert {"account.disable", "key.revoke"} <= set(Event.objects.values_list("kind", flat=True))


def test_an_operator_signs_in_and_out(client: Client, password: str) -> None:
    given = {"username": "admin", "password": password}
    client.get("/login/")

    answer = client.post("/login/?next=/keys/", given | {"next": "/keys/"})
    inside = client.get("/keys/").status_code
    client.post("/logout/")

    assert answer.headers["location"] == "/keys/"
    assert (inside, client.get("/keys/").status_code) == (200, 302)


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "javascript:alert(1)"]
)
def test_a_sign_in_leads_to_no_other_site(client: Client, password: str, target: str) -> None:
    given = {"username": "admin", "password": password, "next": target}

    assert client.post("/login/", given).headers["location"] == "/"


def test_only_operators_sign_in(client: Client, admin_user: User) -> None:
    User.objects.create_user("guest", password="a long pass phrase")

    answer = client.post("/login/", {"username": "guest", "password": "a long pass phrase"})

    assert answer.status_code == 200
    assert "may not use the console" in answer.content.decode()


def test_a_region_whose_session_ended_reloads_its_page(client: Client) -> None:
    answer = client.get("/login/?next=/accounts/", headers={"hx-request": "true"})

    assert answer.headers["hx-refresh"] == "true"


def test_the_overview_leads_through_the_first_steps(admin_client: Client) -> None:
    steps = []
    for make in (_nothing, _make_account, _make_key, _make_record):
        make()
        steps.append(admin_client.get("/").content.decode())

    assert "The pool is empty" in steps[0]
    assert [text.count('class="done"') for text in steps] == [0, 1, 2, 3]
    assert "First request received." in steps[3]
    assert "Every account can serve requests." in steps[3]


def test_the_first_steps_go_when_they_were_seen(admin_client: Client) -> None:
    _make_account()
    _make_key()
    _make_record()
    RequestRecord.objects.update(started_at=timezone.now() - timedelta(minutes=11))

    assert "First steps" not in admin_client.get("/").content.decode()


def test_an_error_is_shown_without_its_details(rf: RequestFactory) -> None:
    page = server_error(rf.get("/")).content.decode()

    assert "Something broke" in page
    assert "carousel.css" in page


def test_a_missing_page_is_shown_in_the_consoles_style(client: Client) -> None:
    answer = client.get("/nothing/")

    assert answer.status_code == 404
    assert "Go to the overview" in answer.content.decode()


def _everything() -> dict[str, object]:
    models = (Account, Credential, LimitWindow, LinkFlow, ClientKey, AdminToken, Event, User)
    return {model.__name__: list(model.objects.order_by("pk").values()) for model in models}


def _nothing() -> None: ...


def _make_account() -> None:
    adding.add_secret(Kind.API_KEY, "console", SECRET, "anna")


def _make_key() -> None:
    keys.create("laptop", "anna")


def _make_record() -> None:
    now = timezone.now()
    RequestRecord.objects.create(
        request_id="r",
        endpoint="/v1/messages",
        status=200,
        ended="complete",
        started_at=now,
        ended_at=now,
    )
