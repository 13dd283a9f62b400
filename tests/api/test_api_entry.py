"""Who may call the admin API, and by what."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from accounts.models import Account
from events.models import Event
from proxy_project import tokens
from sessions_limit import keys

pytestmark = pytest.mark.django_db
SAFE, UNSAFE = "/api/accounts", "/api/accounts/{}/disable"


def answers(client: Client, account: Account, **headers: str) -> tuple[int, int]:
    """Return the status of a safe and of an unsafe request."""
    safe = client.get(SAFE, headers=headers)
    path = UNSAFE.format(account.pk)
    unsafe = client.post(path, content_type="application/json", headers=headers)
    return safe.status_code, unsafe.status_code


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


@pytest.fixture
def strict() -> Client:
    return Client(enforce_csrf_checks=True)


def test_a_stranger_is_told_how_to_sign_in(strict: Client, account: Account) -> None:
    answer = strict.get(SAFE)

    assert answers(strict, account) == (401, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == "Unauthorized"
    assert answer.headers["cache-control"] == "no-store"


def test_a_token_opens_everything_without_cookies(
    strict: Client, account: Account, token: str
) -> None:
    assert answers(strict, account, **bearer(token)) == (200, 200)
    assert Event.objects.get(kind="account.disable").by == "token deploy"


def test_a_relay_key_opens_nothing(strict: Client, account: Account) -> None:
    _, key = keys.create("laptop", by="ada")

    assert answers(strict, account, **bearer(key)) == (401, 401)
    assert answers(strict, account, **{"x-api-key": key}) == (401, 401)


def test_a_revoked_or_expired_token_opens_nothing(strict: Client, account: Account) -> None:
    revoked, first = tokens.create("first", by="ada")
    tokens.revoke(revoked, by="ada")
    _, second = tokens.create("second", by="ada", expires_at=timezone.now() - timedelta(1))

    assert answers(strict, account, **bearer(first)) == (401, 401)
    assert answers(strict, account, **bearer(second)) == (401, 401)


@pytest.mark.parametrize(
    "text", ["adm_", "adm_x", "adm_" + "x" * 200, "adm_é", "adm_\u0661", "x", "", " ", "adm_a b"]
)
def test_a_guess_opens_nothing(strict: Client, account: Account, text: str) -> None:
    given = {"HTTP_AUTHORIZATION": f"Bearer {text}"}

    assert strict.get(SAFE, **given).status_code == 401  # type: ignore[arg-type]


def test_a_user_who_is_no_operator_is_refused(strict: Client, account: Account) -> None:
    strict.force_login(User.objects.create_user("guest"))

    assert answers(strict, account) == (403, 403)


def test_a_session_needs_the_consoles_token_to_change_anything(
    strict: Client, account: Account, operator: User
) -> None:
    strict.force_login(operator)
    strict.get("/tokens/")
    csrf = strict.cookies["csrftoken"].value

    assert answers(strict, account) == (200, 403)
    assert answers(strict, account, **{"x-csrftoken": "x" * 32}) == (200, 403)
    assert not Event.objects.filter(kind="account.disable").exists()
    assert answers(strict, account, **{"x-csrftoken": csrf}) == (200, 200)
    assert Event.objects.get(kind="account.disable").by == "ada"


def test_a_wrong_token_is_not_helped_by_a_session(
    strict: Client, account: Account, operator: User
) -> None:
    strict.force_login(operator)

    assert strict.get(SAFE, headers=bearer("adm_wrong")).status_code == 401
    # A proxy in front may ask for a password of its own.
    assert strict.get(SAFE, headers={"authorization": "Basic YTpi"}).status_code == 200


def test_an_operator_who_was_switched_off_is_a_stranger(
    strict: Client, account: Account, operator: User
) -> None:
    strict.force_login(operator)
    User.objects.update(is_active=False)

    assert answers(strict, account) == (401, 401)


def test_a_guess_that_is_repeated_costs_no_query(
    strict: Client, django_assert_num_queries: Any, db: None
) -> None:
    strict.get(SAFE, headers=bearer("adm_guess"))

    with django_assert_num_queries(0):
        strict.get(SAFE, headers=bearer("adm_guess"))


def test_last_use_is_written_once_a_minute() -> None:
    token, text = tokens.create("deploy", by="ada")
    now = timezone.now()
    seen = []
    for seconds in (0, 59, 60):
        tokens.authenticate(text, now=now + timedelta(seconds=seconds))
        token.refresh_from_db()
        seen.append(token.last_used_at)

    assert seen == [now, now, now + timedelta(seconds=60)]


@pytest.mark.parametrize("path", ["/api/docs", "/api/openapi.json"])
def test_what_the_api_is_is_for_operators_only(strict: Client, operator: User, path: str) -> None:
    before = strict.get(path).status_code
    strict.force_login(operator)

    assert before in (302, 401)
    assert strict.get(path).status_code == 200


def test_the_page_of_the_api_has_nothing_inline(strict: Client, operator: User) -> None:
    strict.force_login(operator)

    answer = strict.get("/api/docs")

    text = answer.content.decode()
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert text.count("<script") == text.count("<script src=") == 2
    assert "<style" not in text
    assert "http" not in text.replace('"http-', "")
    for source in ("api-docs.js", "ninja/swagger-ui-bundle.js", "ninja/swagger-ui.css"):
        assert f"/static/{source}" in text
        assert strict.get(f"/static/{source}").status_code == 200


def test_a_token_reads_the_schema(strict: Client, token: str) -> None:
    schema = strict.get("/api/openapi.json", headers=bearer(token)).json()

    assert schema["info"]["title"] == "Carousel"
    assert "/api/accounts/{account_id}" in schema["paths"]
    answer = schema["paths"]["/api/accounts"]["get"]["responses"]["401"]
    assert list(answer["content"]) == ["application/problem+json"]
