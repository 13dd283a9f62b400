"""The key page: a key is shown once, its settings are ready to copy, and it can be revoked."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from events.models import Event
from sessions_limit import keys, listing
from sessions_limit.models import ClientKey
from sessions_limit.snippets import snippets

KEY = re.compile(r"rk_[\w-]{43}")
HOSTILE = "<script>alert(1)</script>\"' onclick=x"
pytestmark = pytest.mark.django_db


def test_a_key_is_shown_once_and_never_again(admin_client: Client) -> None:
    answer = admin_client.post("/keys/create/", {"name": "laptop", "lifetime": ""})
    (key,) = set(KEY.findall(answer.content.decode()))

    later = admin_client.get("/keys/").content.decode()

    assert "no-store" in answer.headers["cache-control"]
    assert key not in later
    assert f"rk_…{key[-4:]}" in later
    assert "laptop" in later


def test_the_settings_hold_the_key_and_this_servers_address(admin_client: Client) -> None:
    answer = admin_client.post("/keys/create/", {"name": "laptop", "lifetime": ""})

    text = answer.content.decode()
    (key,) = set(KEY.findall(text))
    assert text.count(key) == 5
    assert "export ANTHROPIC_BASE_URL=&#x27;http://testserver&#x27;" in text
    assert "$env:ANTHROPIC_AUTH_TOKEN" in text
    assert "http://testserver/v1/models" in text


def test_the_settings_name_the_public_address_when_there_is_one(
    admin_client: Client, settings: object
) -> None:
    config = settings.CONFIG.model_copy(update={"public_url": "https://relay.example"})  # type: ignore[attr-defined]
    settings.CONFIG = config  # type: ignore[attr-defined]

    text = admin_client.get("/keys/").content.decode()

    assert "https://relay.example/v1/models" in text
    assert "testserver" not in text


def test_the_settings_file_is_json() -> None:
    import json

    (snippet,) = [s for s in snippets("https://r.example", "rk_x") if s.id == "settings"]

    assert json.loads(snippet.text)["env"]["ANTHROPIC_AUTH_TOKEN"] == "rk_x"


def test_a_key_can_have_an_end(admin_client: Client) -> None:
    admin_client.post("/keys/create/", {"name": "laptop", "lifetime": "30"})

    end = ClientKey.objects.get().expires_at
    assert end is not None
    assert abs(end - timezone.now() - timedelta(days=30)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "given", [{}, {"name": " "}, {"name": "x" * 101}, {"name": "x", "lifetime": "-1"}]
)
def test_a_wrong_form_makes_no_key(admin_client: Client, given: dict[str, str]) -> None:
    answer = admin_client.post("/keys/create/", given)

    assert "errorlist" in answer.content.decode()
    assert not ClientKey.objects.exists()


def test_revoking_asks_once_and_is_in_the_events(admin_client: Client) -> None:
    key, _ = keys.create("laptop", "anna")

    asked = admin_client.get(f"/keys/{key.pk}/revoke/")
    untouched = ClientKey.objects.get().revoked_at
    done = admin_client.post(f"/keys/{key.pk}/revoke/", follow=True)

    assert "cannot be undone" in asked.content.decode()
    assert untouched is None
    assert "is revoked" in done.content.decode()
    assert ClientKey.objects.get().revoked_at is not None
    assert Event.objects.get(kind="key.revoke").by == "admin"


def test_a_second_tab_sees_that_a_key_was_revoked_before(admin_client: Client) -> None:
    key, _ = keys.create("laptop", "anna")
    keys.revoke(key, by="berta")

    answer = admin_client.post(f"/keys/{key.pk}/revoke/", follow=True)

    assert "was revoked before" in answer.content.decode()
    assert Event.objects.filter(kind="key.revoke").count() == 1


def test_a_hostile_name_is_shown_as_text(admin_client: Client) -> None:
    key, _ = keys.create(HOSTILE, HOSTILE)

    for path in ("/keys/", f"/keys/{key.pk}/revoke/", "/admin/sessions_limit/clientkey/"):
        text = admin_client.get(path).content.decode()
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text


def test_marks_that_nobody_sees_are_taken_out_of_a_name(admin_client: Client) -> None:
    admin_client.post("/keys/create/", {"name": "laptop\u202e of\nanna"})
    unseen = admin_client.post("/keys/create/", {"name": "\u202e\u200b"})

    assert ClientKey.objects.get().name == "laptop of anna"
    assert "characters that can be read." in unseen.content.decode()


def test_a_keys_state_is_a_word() -> None:
    now = timezone.now()
    past = now - timedelta(days=1)

    kept = [
        ClientKey(),
        ClientKey(expires_at=past),
        ClientKey(enabled=False),
        ClientKey(revoked_at=past, expires_at=past),
    ]

    states = [(row.state, row.is_usable) for row in listing.rows(kept)]

    assert states == [
        ("active", True),
        ("expired", False),
        ("disabled", False),
        ("revoked", False),
    ]


def test_only_keys_that_open_the_relay_count() -> None:
    now = timezone.now()
    keys.create("lives", "anna")
    keys.create("expired", "anna", expires_at=now - timedelta(days=1))
    revoked, _ = keys.create("revoked", "anna")
    keys.revoke(revoked, by="anna")

    assert listing.count_usable(now) == 1


def test_a_key_that_is_not_there_is_a_404(admin_client: Client) -> None:
    assert admin_client.get("/keys/99/revoke/").status_code == 404


def test_a_key_is_bound_to_labels(admin_client: Client) -> None:
    given = {"name": "ci", "lifetime": "", "labels": "team-b, team-a team-b"}
    admin_client.post("/keys/create/", given)

    assert ClientKey.objects.get().labels == ["team-a", "team-b"]


def test_what_is_no_label_is_refused(admin_client: Client) -> None:
    given = {"name": "ci", "lifetime": "", "labels": "<b>"}
    answer = admin_client.post("/keys/create/", given)

    assert b"is not a label" in answer.content
    assert b"<b>" not in answer.content
    assert not ClientKey.objects.exists()
