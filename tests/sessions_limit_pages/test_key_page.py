"""The pages of all keys and of a new one: it is shown once, and its settings are ready to copy."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from sessions_limit import keys, listing
from sessions_limit.models import ClientKey
from sessions_limit.snippets import snippets
from tests.sessions_limit_pages.conftest import Begin
from usage import rollup
from usage.models import RequestRecord

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
    ("given", "is_open"),
    [
        ({}, False),
        ({"name": " "}, False),
        ({"name": "x" * 101}, False),
        ({"name": "x", "lifetime": "-1"}, False),
        ({"name": "x", "networks": "nowhere"}, True),
        ({"name": "x", "usd_per_day": "1e3"}, True),
    ],
)
def test_a_wrong_form_makes_no_key_and_keeps_what_was_typed(
    admin_client: Client, given: dict[str, str], is_open: bool
) -> None:
    given |= {"owner": "Ada", "time_zone": "UTC"}
    text = admin_client.post("/keys/create/", given).content.decode()

    assert "errorlist" in text
    assert ('<details class="fold" open>' in text) is is_open
    given.pop("lifetime", "")
    assert all(f'value="{value}"' in text or f">\n{value}<" in text for value in given.values())
    assert not ClientKey.objects.exists()


def test_a_new_key_takes_every_term(admin_client: Client) -> None:
    given = {
        "name": "ci",
        "owner": "Team B",
        "model_patterns": "claude-haiku-*\r\nclaude-sonnet-*",
        "networks": "192.0.2.0/24, 2001:db8::/32",
        "max_sessions": "-1",
        "max_in_flight": "4",
        "requests_per_minute": "60",
        "tokens_per_minute": "90000",
        "tokens_per_day": "0",
        "usd_per_month": "2.50",
        "time_zone": "Asia/Kathmandu",
    }

    admin_client.post("/keys/create/", given)

    key = ClientKey.objects.get()
    assert (key.name, key.owner, key.time_zone) == ("ci", "Team B", "Asia/Kathmandu")
    assert key.model_patterns == ["claude-haiku-*", "claude-sonnet-*"]
    assert key.networks == ["192.0.2.0/24", "2001:db8::/32"]
    assert (key.max_sessions, key.max_in_flight) == (-1, 4)
    assert (key.requests_per_minute, key.tokens_per_minute) == (60, 90_000)
    assert (key.tokens_per_day, key.cost_per_month, key.cost_per_day) == (0, 2_500_000, None)
    assert (key.passthrough, key.pinned_account, key.expires_at) == (False, None, None)


def test_a_pass_through_key_comes_with_settings_that_keep_its_holders_login(
    admin_client: Client,
) -> None:
    given = {"name": "ada", "passthrough": "on"}
    text = admin_client.post("/keys/create/", given).content.decode()

    (key,) = set(KEY.findall(text))
    assert f"ANTHROPIC_CUSTOM_HEADERS=&#x27;x-relay-key: {key}&#x27;" in text
    assert "ANTHROPIC_AUTH_TOKEN" not in text
    assert "stays signed in to their own Claude account" in text


def test_keys_are_listed_with_their_sessions_and_their_fullest_budget(
    admin_client: Client, key: ClientKey, begin: Begin, settings: Any
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"session_limit": True})
    ClientKey.objects.update(owner="Ada", tokens_per_day=1000, tokens_per_month=500, max_sessions=1)
    begin(key, "lives")
    begin(key, "over", ended_at=timezone.now(), ended="idle")
    RequestRecord.objects.create(
        request_id="r",
        key=key,
        endpoint="/v1/messages",
        status=200,
        ended="complete",
        output_tokens=120,
        started_at=timezone.now(),
        ended_at=timezone.now(),
    )
    rollup.mark([timezone.now()])

    text = " ".join(admin_client.get("/keys/").content.decode().split())

    assert "Tokens a month</span><span>120 of 500</span>" in text
    assert "1 of 1 <span" in text
    assert ">Ada<" in text


def test_many_keys_cost_no_more_queries_than_few(
    admin_client: Client, key: ClientKey, django_assert_max_num_queries: Any
) -> None:
    base = {"created_by": "anna", "tokens_per_day": 5, "time_zone": "Europe/Berlin"}
    rows = [ClientKey(name=f"key {n}", hash=str(n), hint="abcd", **base) for n in range(150)]
    ClientKey.objects.bulk_create(rows)

    with django_assert_max_num_queries(25):
        text = admin_client.get("/keys/").content.decode()
    rest = admin_client.get("/keys/?page=2").content.decode()

    assert "1 to 100 of 151" in text
    assert "101 to 151 of 151" in rest
    assert "laptop" in rest


def test_keys_are_filtered(admin_client: Client, key: ClientKey) -> None:
    other, _ = keys.create("tablet", "anna", owner="Ben")
    keys.revoke(other, "anna")

    def found(query: str) -> list[str]:
        text = admin_client.get(f"/keys/?{query}").content.decode()
        return [name for name in ("laptop", "tablet") if f'title="{name}"' in text]

    assert found("state=active") == ["laptop"]
    assert found("state=revoked") == found("q=ben") == found(f"q={other.hint}") == ["tablet"]
    assert found("state=nonsense") == ["laptop", "tablet"]
    assert found("q=%3Cb%3E") == []


def test_a_hostile_name_is_shown_as_text(admin_client: Client) -> None:
    key, _ = keys.create(HOSTILE, HOSTILE)

    one = [f"/keys/{key.pk}/{page}" for page in ("", "terms/", "rotate/", "revoke/")]
    for path in ("/keys/", *one, "/admin/sessions_limit/clientkey/"):
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
