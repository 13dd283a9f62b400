"""Changing an account's settings: all or nothing, with one journal row that holds no secret."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import adding, editing, egress, facts, health, lifecycle
from accounts.errors import BadFields, MoveRefused
from accounts.models import Account
from accounts.states import Kind
from events.models import Event
from providers.base import Window
from tests.api.conftest import Call

pytestmark = pytest.mark.django_db
SETTINGS = {
    "name": "team key",
    "priority": 0,
    "weight": 100,
    "max_in_flight": 10_000,
    "requests_per_minute": 50,
    "tokens_per_minute": None,
    "labels": ["a", "b"],
    "never_overage": False,
    "leave_at_percent": 80,
    "pinned": True,
}


def updates() -> list[Event]:
    return list(Event.objects.filter(kind="account.updated"))


@pytest.fixture
def other(account: Account) -> Account:
    return adding.add_secret(Kind.API_KEY, "other", "sk-ant-api03-other", "ada")


@pytest.fixture
def loopback(settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"allow_loopback_upstreams": True})


@pytest.fixture
def endpoint(loopback: None, db: None) -> Account:
    return adding.add_compatible(
        "local", by="ada", base_url="http://127.0.0.1:9", auth="bearer", secret="a-secret"
    )


def test_every_setting_can_be_changed_at_once(account: Account) -> None:
    changed = editing.update(account, by="ada", **SETTINGS)

    assert {name: getattr(changed, name) for name in SETTINGS} == SETTINGS
    (event,) = updates()
    assert event.by == "ada"
    assert event.data["old"]["priority"] == 50
    assert event.data["new"]["leave_at_percent"] == 80
    # It had no such limit before.
    assert "tokens_per_minute" not in event.data["new"]


def test_a_change_to_what_is_there_already_leaves_no_trace(account: Account) -> None:
    editing.update(account, by="ada", **SETTINGS)
    editing.update(account, by="ada", **SETTINGS)
    editing.update(account, by="ada")

    assert len(updates()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", ""),
        ("name", "\u202e\u0000"),
        ("name", "x" * 101),
        ("name", None),
        ("name", "other"),
        ("priority", -1),
        ("priority", 1001),
        ("priority", True),
        ("priority", 1.0),
        ("priority", "1"),
        ("priority", None),
        ("weight", 0),
        ("weight", 101),
        ("max_in_flight", 0),
        ("max_in_flight", 10_001),
        ("requests_per_minute", 0),
        ("requests_per_minute", 2**31),
        ("tokens_per_minute", 2**63),
        ("labels", "a"),
        ("labels", ["A"]),
        ("labels", [""]),
        ("labels", ["a b"]),
        ("labels", ["x" * 33]),
        ("labels", [1]),
        ("labels", [[]]),
        ("labels", [str(number) for number in range(21)]),
        ("never_overage", None),
        ("never_overage", 1),
        ("leave_at_percent", 0),
        ("leave_at_percent", 101),
        ("pinned", "yes"),
        ("status", "active"),
        ("credential", None),
        ("base_url", "https://example.com"),
        ("base_url", None),
        ("model_map", []),
        ("secret", 1),
        ("proxy", "nonsense"),
        ("proxy", 1),
    ],
)
def test_one_wrong_field_changes_nothing(
    account: Account, other: Account, name: str, value: Any
) -> None:
    with pytest.raises(BadFields) as raised:
        editing.update(account, by="ada", **{"priority": 7, name: value})

    assert list(raised.value.errors) == [name]
    assert Account.objects.get(pk=account.pk).priority == 50
    assert not updates()


def test_labels_are_kept_once_in_their_order(account: Account) -> None:
    assert editing.update(account, by="ada", labels=["b", "a", "b"]).labels == ["b", "a"]


def test_a_removed_account_is_not_changed(account: Account) -> None:
    lifecycle.remove(account, by="ada")

    with pytest.raises(MoveRefused):
        editing.update(account, by="ada", priority=1)


@pytest.mark.parametrize(
    ("reason", "before", "change", "status"),
    [
        ("headroom (5h)", {"leave_at_percent": 50}, {"leave_at_percent": 60}, "active"),
        ("headroom (5h)", {"leave_at_percent": 50}, {"leave_at_percent": None}, "active"),
        ("headroom (5h)", {"leave_at_percent": 50}, {"leave_at_percent": 40}, "rate_limited"),
        ("headroom (5h)", {"leave_at_percent": 50}, {"never_overage": False}, "rate_limited"),
        ("overage (5h)", {"never_overage": True}, {"never_overage": False}, "active"),
        ("overage (5h)", {"never_overage": True}, {"leave_at_percent": 60}, "rate_limited"),
        ("limit_reached (5h)", {"leave_at_percent": 50}, {"leave_at_percent": 60}, "rate_limited"),
    ],
)
def test_an_account_returns_when_the_setting_that_benched_it_is_relaxed(
    account: Account, reason: str, before: dict[str, Any], change: dict[str, Any], status: str
) -> None:
    now = timezone.now()
    Account.objects.update(**before)
    health.limit(account.pk, now + timedelta(hours=3), reason, observed_at=now)

    changed = editing.update(account, by="ada", **change)

    assert changed.status == status
    assert (changed.limited_until is None) == (status == "active")


@pytest.mark.parametrize(
    ("percent", "status"), [(85, "rate_limited"), (90, "rate_limited"), (91, "active")]
)
def test_it_stays_away_while_more_is_used_than_the_new_share_allows(
    account: Account, percent: int, status: str
) -> None:
    now = timezone.now()
    reset = now + timedelta(hours=3)
    Account.objects.update(leave_at_percent=80)
    told = [Window("5h", "allowed", 0.9, reset), Window("7d", "allowed", 0.99, now)]
    facts.write([facts.row(account.pk, now, told)])
    health.limit(account.pk, reset, "headroom (5h)", observed_at=now, probes=False)

    changed = editing.update(account, by="ada", leave_at_percent=percent)

    assert changed.status == status


def test_an_endpoints_address_moves_only_with_its_secret(endpoint: Account) -> None:
    with pytest.raises(BadFields) as raised:
        editing.update(endpoint, by="ada", base_url="http://127.0.0.1:10", priority=1)
    moved = editing.update(
        endpoint, by="ada", base_url="http://127.0.0.1:10", secret="new-secret", priority=1
    )

    assert list(raised.value.errors) == ["secret"]
    assert (moved.base_url, moved.priority) == ("http://127.0.0.1:10", 1)
    assert moved.credential is not None
    assert moved.credential.access_token == "new-secret"
    assert len(updates()) == 1


@pytest.mark.parametrize("name", ["base_url", "auth", "forwards_betas", "model_map", "secret"])
def test_what_an_endpoint_needs_cannot_be_taken_away(
    call: Call, endpoint: Account, name: str
) -> None:
    answer = call("PATCH", f"/accounts/{endpoint.pk}", {name: None})

    assert answer.status_code == 422
    assert list(answer.body["errors"]) == [name]


def test_the_api_changes_what_is_given_and_nothing_else(call: Call, account: Account) -> None:
    path = f"/accounts/{account.pk}"

    changed = call("PATCH", path, {"labels": ["team"], "leave_at_percent": 80})
    again = call("PATCH", path, {"leave_at_percent": None})

    assert changed.body["settings"]["labels"] == again.body["settings"]["labels"] == ["team"]
    assert changed.body["settings"]["leave_at_percent"] == 80
    assert again.body["settings"]["leave_at_percent"] is None
    for wrong in ({"priority": 2000}, {"priority": None}, {"odd": 1}, {"base_url": "x"}):
        answer = call("PATCH", path, wrong)
        assert (answer.status_code, list(answer.body["errors"])) == (422, list(wrong))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("priority", value) for value in (True, "7", 7.0, [7])],
        *[("leave_at_percent", value) for value in (True, "80")],
        *[("pinned", value) for value in ("yes", 1, 0, "true")],
        *[("forwards_betas", value) for value in ("on", 1)],
        *[("name", value) for value in (7, True)],
        *[("labels", value) for value in ("a", [1], {"a": 1})],
        ("auth", 1),
    ],
)
def test_a_value_of_another_type_is_not_read_as_one_of_the_right_type(
    call: Call, endpoint: Account, name: str, value: Any
) -> None:
    answer = call("PATCH", f"/accounts/{endpoint.pk}", {name: value})

    assert (answer.status_code, list(answer.body["errors"])) == (422, [name])
    assert not updates()


def test_adding_and_disabling_take_no_other_types_either(call: Call, account: Account) -> None:
    given = {"kind": "compatible", "name": "a", "preset": "ollama", "forwards_betas": "no"}
    added = call("POST", "/accounts", given)
    cut = call("POST", f"/accounts/{account.pk}/disable", {"cut": "yes"})

    assert (added.status_code, list(added.body["errors"])) == (422, ["forwards_betas"])
    assert (cut.status_code, list(cut.body["errors"])) == (422, ["cut"])


def test_the_api_takes_how_an_endpoint_is_spoken_to(call: Call, endpoint: Account) -> None:
    given = {"auth": "x-api-key", "secret": "another", "forwards_betas": True}
    changed = call("PATCH", f"/accounts/{endpoint.pk}", given)

    assert changed.body["endpoint"]["auth"] == "x-api-key"


def test_a_proxys_password_is_in_no_answer_and_no_event(
    call: Call, account: Account, loopback: None
) -> None:
    path = f"/accounts/{account.pk}"
    url = "http://user:hidden-password@127.0.0.1:3128"

    changed = call("PATCH", path, {"proxy": url})
    answers = [changed, call("GET", path), call("GET", "/accounts"), call("GET", "/events")]

    assert egress.of(account) == url
    assert changed.body["proxy"] == "http://127.0.0.1:3128"
    assert not [answer for answer in answers if b"hidden-password" in answer.content]
    assert call("PATCH", path, {"proxy": None}).body["proxy"] == ""


def test_an_endpoint_is_added_and_shown(call: Call, endpoint: Account, settings: Any) -> None:
    given = {"kind": "compatible", "name": "second", "base_url": "http://127.0.0.1:11"}

    added = call("POST", "/accounts", given | {"secret": "s", "model_map": {"claude-*": "m"}})
    wrong = call("POST", "/accounts", given | {"base_url": "http://169.254.169.254", "secret": "s"})

    assert added.body["endpoint"] == {
        "preset": "",
        "base_url": "http://127.0.0.1:11",
        "auth": "bearer",
        "forwards_betas": True,
        "model_map": {"claude-*": "m"},
    }
    assert (wrong.status_code, list(wrong.body["errors"])) == (422, ["base_url"])
