"""Relay keys in the admin API: made, changed, rotated, ended, and never shown twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Account
from events.models import Event
from sessions_limit import issuing, keys
from sessions_limit.keytext import hash_of
from sessions_limit.models import ClientKey
from tests.api.conftest import Call

pytestmark = pytest.mark.django_db
TERMS = {
    "owner": "Ada",
    "labels": ["a", "b"],
    "model_patterns": ["claude-haiku-*"],
    "networks": ["10.0.0.0/8"],
    "passthrough": True,
    "requests_per_minute": 5,
    "tokens_per_minute": 6,
    "max_in_flight": 7,
    "max_sessions": -1,
    "tokens_per_day": 0,
    "tokens_per_week": 8,
    "tokens_per_month": 10**15,
    "usd_per_day": 0.5,
    "usd_per_week": 12.345678,
    "usd_per_month": 0,
    "time_zone": "Europe/Berlin",
}


def test_a_key_is_made_with_every_term_and_shown_once(call: Call, account: Account) -> None:
    ends = (timezone.now() + timedelta(days=1)).isoformat()
    given = TERMS | {"name": "ci", "expires_at": ends, "pinned_account": account.pk}

    made = call("POST", "/keys", given)

    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    text = made.body.pop("key")
    row = ClientKey.objects.get()
    assert keys._find(hash_of(text)) is not None
    assert (row.created_by, row.cost_per_week) == ("token deploy", 12_345_678)
    told = call("GET", f"/keys/{row.pk}")
    assert told.body == made.body
    assert TERMS.items() <= told.body.items()
    assert told.body["pinned_account"] == account.pk
    assert (told.body["state"], told.body["hint"]) == ("active", text[-4:])
    answers = [told, call("GET", "/keys"), call("GET", "/events")]
    for secret in (text, row.hash):
        assert not [answer for answer in answers if secret.encode() in answer.content]


def test_keys_are_listed_by_pages_and_states(call: Call) -> None:
    past = timezone.now() - timedelta(days=1)
    for name in ("active", "disabled", "expired", "revoked"):
        keys.create(name, by="ada")
    rows = {row.name: row for row in ClientKey.objects.all()}
    issuing.disable(rows["disabled"], by="ada")
    issuing.update(rows["expired"], by="ada", expires_at=past, enabled=False)
    keys.revoke(rows["revoked"], by="ada")

    def names(query: str) -> list[str]:
        return [item["name"] for item in call("GET", f"/keys{query}").body["items"]]

    first = call("GET", "/keys?limit=3").body
    assert [item["state"] for item in first["items"]] == ["active", "disabled", "expired"]
    assert names(f"?limit=3&cursor={first['next']}") == ["revoked"]
    assert call("GET", "/keys?limit=4").body["next"] is None
    assert [names(f"?state={state}") for state in rows] == [[state] for state in rows]
    assert call("GET", "/keys?state=odd").status_code == 422


def test_what_is_given_is_changed_and_nothing_else(call: Call) -> None:
    row = keys.create("ci", by="ada", owner="Ada", max_sessions=2)[0]

    changed = call("PATCH", f"/keys/{row.pk}", {"max_sessions": None, "usd_per_day": 1})
    off = call("PATCH", f"/keys/{row.pk}", {"enabled": False})
    cleared = call("PATCH", f"/keys/{row.pk}", dict.fromkeys(TERMS))

    assert (changed.body["owner"], changed.body["max_sessions"]) == ("Ada", None)
    assert (changed.body["usd_per_day"], off.body["state"]) == (1.0, "disabled")
    assert (cleared.body["owner"], cleared.body["usd_per_day"]) == ("", None)
    assert (cleared.body["passthrough"], cleared.body["time_zone"]) == (False, "UTC")
    kinds = Event.objects.filter(by="token deploy").order_by("id").values_list("kind", flat=True)
    assert list(kinds) == ["key.update", "key.disable", "key.update"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("name", value) for value in ("", "\u202e", "x" * 101, None, 5)],
        *[("enabled", value) for value in (None, 1, "yes")],
        *[("expires_at", value) for value in ("2020-01-01T00:00:00Z", "soon", [1], "2999-01-01")],
        *[("max_sessions", value) for value in (-2, "1", True, 1.0, 2**31, 10**400)],
        *[("requests_per_minute", value) for value in (0, True, "5", 2**31)],
        *[("tokens_per_day", value) for value in (-1, 10**15 + 1, 1.5)],
        *[("usd_per_day", value) for value in (-1, "5", True, 0.1234567, 1e300)],
        *[("usd_per_day", value) for value in (float("nan"), float("inf"))],
        *[("pinned_account", value) for value in (999, "1", True, 10**400)],
        *[("labels", value) for value in ("a", ["A"], [1])],
        *[("model_patterns", value) for value in ("a", [""], ["a b"], [5])],
        *[("networks", value) for value in ("10.0.0.0/8", ["10.0.0.0/99"], [5])],
        *[("time_zone", value) for value in ("Mars", "../x", "x" * 65, 5)],
        *[("hash", "x"), ("cost_per_day", 1), ("revoked_at", None)],
    ],
)
def test_a_wrong_field_is_told_and_changes_nothing(call: Call, name: str, value: Any) -> None:
    row = keys.create("ci", by="ada")[0]
    Event.objects.all().delete()

    answer = call("PATCH", f"/keys/{row.pk}", {"owner": "Ada", name: value})

    assert (answer.status_code, list(answer.body["errors"])) == (422, [name])
    assert answer.headers["content-type"] == "application/problem+json"
    row.refresh_from_db()
    assert row.owner == ""
    assert not Event.objects.exists()


def test_a_key_needs_a_name(call: Call) -> None:
    assert call("POST", "/keys", {}).body["errors"].keys() == {"name"}
    assert call("POST", "/keys", {"name": "a", "enabled": False}).status_code == 422
    assert not ClientKey.objects.exists()


def test_a_key_is_rotated_and_the_new_secret_shown_once(call: Call) -> None:
    row, old = keys.create("ci", by="ada")

    first = call("POST", f"/keys/{row.pk}/rotate")
    second = call("POST", f"/keys/{row.pk}/rotate", {"overlap_hours": 0})

    assert first.body["previous_until"] is not None
    assert second.body["previous_until"] is None
    known = [keys.recognise(text) for text in (old, first.body["key"], second.body["key"])]
    assert [key and key.id for key in known] == [None, None, row.pk]
    assert b"rk_" not in call("GET", f"/keys/{row.pk}").content
    for hours in (-1, 721, "5", None, True, float("nan")):
        answer = call("POST", f"/keys/{row.pk}/rotate", {"overlap_hours": hours})
        assert (answer.status_code, list(answer.body["errors"])) == (422, ["overlap_hours"])


def test_an_overlap_that_is_over_is_told_no_more(call: Call) -> None:
    row = keys.create("ci", by="ada")[0]
    issuing.rotate(row, by="ada", now=timezone.now() - timedelta(hours=25))

    assert call("GET", f"/keys/{row.pk}").body["previous_until"] is None


def test_an_overlap_ends_with_its_key(call: Call) -> None:
    row = keys.create("ci", by="ada")[0]
    issuing.rotate(row, by="ada")

    ClientKey.objects.update(expires_at=timezone.now() + timedelta(hours=1))
    shorter = call("GET", f"/keys/{row.pk}").body
    revoked = call("POST", f"/keys/{row.pk}/revoke").body

    assert shorter["previous_until"] == shorter["expires_at"]
    assert revoked["previous_until"] is None


def test_a_revoked_key_stays_as_it_is(call: Call) -> None:
    row, text = keys.create("ci", by="ada")

    answers = [call("POST", f"/keys/{row.pk}/revoke") for _ in range(2)]
    late = [
        call("PATCH", f"/keys/{row.pk}", {"owner": "Ada"}),
        call("PATCH", f"/keys/{row.pk}", {"enabled": True}),
        call("POST", f"/keys/{row.pk}/rotate"),
    ]

    assert [answer.body["state"] for answer in answers] == ["revoked", "revoked"]
    assert keys.recognise(text) is None
    assert Event.objects.filter(kind="key.revoke").count() == 1
    assert {answer.status_code for answer in late} == {409}


def test_what_is_not_there_is_a_404(call: Call) -> None:
    answers = [
        call("GET", "/keys/999"),
        call("PATCH", "/keys/999", {}),
        call("POST", "/keys/999/rotate"),
        call("POST", "/keys/999/revoke"),
    ]

    assert {answer.status_code for answer in answers} == {404}
