"""Every verb of the accounts in the admin API, and what it answers."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts import adding, health
from accounts.models import Account, Credential, LimitWindow, LinkFlow, WindowSample
from accounts.states import Kind
from events.models import Event
from proxy_project import tokens
from tests.api.conftest import Call
from tests.support.simulator import Simulator

pytestmark = pytest.mark.django_db
# The refresh writes from threads of its own.
threads = pytest.mark.django_db(transaction=True)


def test_an_account_is_told_with_everything_that_its_card_says(
    call: Call, account: Account
) -> None:
    now = timezone.now()
    health.limit(account.pk, now + timedelta(hours=1), "limit_reached (5h)", observed_at=now)
    LimitWindow.objects.create(
        account=account, name="5h", utilization=0.25, observed_at=now, reset_at=now
    )

    told = call("GET", f"/accounts/{account.pk}").body

    assert (told["status"], told["state"], told["step"]) == ("rate_limited", "rate limited", "wait")
    assert told["reason"] == "limit_reached (5h)"
    assert told["limited_until"] is not None
    assert told["is_usable"] is False
    assert told["settings"]["priority"] == 50
    assert told["token"]["expires_at"] is None
    assert (told["endpoint"], told["proxy"]) == (None, "")
    (window,) = told["windows"]
    assert (window["utilization"], window["is_over"]) == (0.25, True)


def test_accounts_are_listed_by_pages_and_filters(call: Call, simulator: Simulator) -> None:
    for number in range(5):
        adding.add_secret(Kind.API_KEY, f"key {number}", simulator.api_key(f"k{number}"), "ada")
    Account.objects.filter(name="key 3").update(status="invalid", labels=["team"])

    def names(query: str) -> list[str]:
        return [item["name"] for item in call("GET", f"/accounts{query}").body["items"]]

    first = call("GET", "/accounts?limit=2").body
    assert [item["name"] for item in first["items"]] == ["key 0", "key 1"]
    assert names(f"?limit=2&cursor={first['next']}") == ["key 2", "key 3"]
    assert call("GET", "/accounts?limit=5").body["next"] is None
    assert names("?status=invalid") == names("?label=team") == ["key 3"]
    assert names("?kind=oauth") == names("?label=te") == []


def test_a_list_takes_as_many_queries_for_many_as_for_one(
    call: Call, simulator: Simulator, account: Account, django_assert_num_queries: Any
) -> None:
    call("GET", "/accounts")  # its token's last use is written now
    with django_assert_num_queries(3):
        call("GET", "/accounts")
    for number in range(3):
        added = adding.add_secret(Kind.API_KEY, f"{number}", simulator.api_key(f"k{number}"), "ada")
        LimitWindow.objects.create(account=added, name="5h", observed_at=timezone.now())

    with django_assert_num_queries(3):
        assert len(call("GET", "/accounts").body["items"]) == 4
    with django_assert_num_queries(2):
        call("GET", "/events")


def test_a_login_is_linked_in_two_calls(call: Call, simulator: Simulator) -> None:
    simulator.person("ada@example.com")
    begun = call("POST", "/accounts/oauth/start")
    flow = begun.body["flow_id"]
    given = {"flow_id": flow, "pasted": simulator.authorize(begun.body["url"], "ada@example.com")}

    linked = call("POST", "/accounts/oauth/complete", given | {"name": "ada"})
    again = call("POST", "/accounts/oauth/complete", given)

    assert (begun.status_code, linked.status_code, again.status_code) == (201, 200, 200)
    assert (linked.body["name"], linked.body["email"]) == ("ada", "ada@example.com")
    assert again.body["id"] == linked.body["id"]
    assert linked.body["token"]["expires_at"] is not None


def test_a_login_belongs_to_the_token_that_began_it(call: Call, simulator: Simulator) -> None:
    simulator.person("ada@example.com")
    begun = call("POST", "/accounts/oauth/start").body
    pasted = simulator.authorize(begun["url"], "ada@example.com")
    _, other = tokens.create("other", by="ada")

    given = {"flow_id": begun["flow_id"], "pasted": pasted}
    answer = call("POST", "/accounts/oauth/complete", given, authorization=f"Bearer {other}")

    assert answer.status_code == 409
    assert LinkFlow.objects.get().used_at is None


@pytest.mark.parametrize(
    ("given", "status", "field"),
    [
        ({"pasted": "code#wrong"}, 422, "pasted"),
        ({"pasted": ""}, 422, "pasted"),
        ({"pasted": "wrong"}, 422, "pasted"),
        ({"flow_id": "nonsense"}, 409, None),
        ({"flow_id": "0" * 32}, 409, None),
    ],
)
def test_a_wrong_code_is_told(
    call: Call, given: dict[str, str], status: int, field: str | None
) -> None:
    flow = call("POST", "/accounts/oauth/start").body["flow_id"]

    answer = call("POST", "/accounts/oauth/complete", {"flow_id": flow, "pasted": "x"} | given)

    assert answer.status_code == status
    assert list(answer.body.get("errors", [None])) == [field]


def test_accounts_are_added_by_every_kind_of_secret(call: Call, simulator: Simulator) -> None:
    simulator.person("ada@example.com")
    file = json.dumps({"claudeAiOauth": {"accessToken": "sk-ant-oat01-file"}})
    given = [
        {"kind": "api_key", "name": "key", "secret": simulator.api_key("k")},
        {
            "kind": "setup_token",
            "name": "token",
            "secret": simulator.setup_token("ada@example.com"),
        },
        {"kind": "credentials_file", "name": "file", "secret": file},
    ]

    answers = [call("POST", "/accounts", one) for one in given]

    assert [answer.status_code for answer in answers] == [201] * 3
    assert [answer.body["kind"] for answer in answers] == ["api_key", "setup_token", "oauth"]
    assert Event.objects.filter(by="token deploy").count() == 3
    assert call("POST", "/accounts", given[0]).status_code == 409


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({}, ["body"]),
        ({"kind": "oauth"}, ["body"]),
        ({"kind": "api_key"}, ["name", "secret"]),
        ({"kind": "api_key", "name": "a", "secret": "a b"}, ["secret"]),
        ({"kind": "api_key", "name": "\u202e", "secret": "x"}, ["name"]),
        ({"kind": "api_key", "name": "a", "secret": "x" * 5000}, ["secret"]),
        ({"kind": "api_key", "name": "a", "secret": "x", "odd": 1}, ["odd"]),
        ({"kind": "credentials_file", "secret": "{"}, ["secret"]),
    ],
)
def test_an_account_that_cannot_be_is_not_added(
    call: Call, given: dict[str, Any], fields: list[str]
) -> None:
    answer = call("POST", "/accounts", given)

    assert answer.status_code == 422
    assert not Account.objects.exists()
    assert sorted(answer.body["errors"]) == fields


def test_an_account_is_disabled_enabled_tested_cleared_and_removed(
    call: Call, account: Account
) -> None:
    path = f"/accounts/{account.pk}"

    assert call("POST", f"{path}/disable").body["status"] == "inactive"
    assert call("POST", f"{path}/clear").status_code == 409
    assert call("POST", f"{path}/enable").body["status"] == "active"
    assert call("POST", f"{path}/disable", {"cut": True}).body["status"] == "inactive"
    assert call("POST", f"{path}/enable").body["is_usable"] is True
    assert call("POST", f"{path}/clear").body["status"] == "active"
    assert call("POST", f"{path}/test").body | {"ms": 0, "sentence": ""} == {
        "ok": True,
        "status": 200,
        "ms": 0,
        "sentence": "",
    }
    removed = call("DELETE", path)
    assert (removed.status_code, removed.content) == (204, b"")
    assert call("GET", path).status_code == 404
    kinds = [event["kind"] for event in call("GET", f"{path}/history").body["items"]]
    assert kinds[0] == "account.removed"
    assert {"account.disable", "account.enable", "account.cleared", "account.tested"} <= set(kinds)


def test_what_an_account_cannot_do_is_a_conflict(call: Call, account: Account) -> None:
    path = f"/accounts/{account.pk}"

    answers = [call("POST", f"{path}/{verb}") for verb in ("enable", "retry", "refresh")]

    assert [answer.status_code for answer in answers] == [409] * 3
    assert "not inactive" in answers[0].body["detail"]
    assert answers[0].body["title"] == "Conflict"


@threads
def test_a_login_is_refreshed(call: Call, simulator: Simulator) -> None:
    simulator.person("ada@example.com")
    begun = call("POST", "/accounts/oauth/start").body
    pasted = simulator.authorize(begun["url"], "ada@example.com")
    given = {"flow_id": begun["flow_id"], "pasted": pasted}
    path = f"/accounts/{call('POST', '/accounts/oauth/complete', given).body['id']}"

    refreshed = call("POST", f"{path}/refresh")
    simulator.script({"path": "/v1/oauth/token"}, status=503, times=None)
    later = call("POST", f"{path}/refresh")

    assert (refreshed.status_code, later.status_code) == (200, 503)
    assert Credential.objects.count() == 2
    assert int(later.headers["retry-after"]) > 0
    assert later.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["", "/windows", "/series?window=5h", "/history"])
def test_an_account_that_is_not_there_is_not_found(call: Call, db: None, path: str) -> None:
    for pk in (999, 2**63 - 1):
        answer = call("GET", f"/accounts/{pk}{path}")
        assert (answer.status_code, answer.body["status"]) == (404, 404)


def test_windows_and_their_series_are_fractions(call: Call, account: Account) -> None:
    now = timezone.now().replace(second=0, microsecond=0)
    LimitWindow.objects.create(account=account, name="5h", utilization=0.5, observed_at=now)
    for minutes in (3, 2, 1, 2000):
        WindowSample.objects.create(
            account=account,
            name="5h",
            at=now - timedelta(minutes=minutes),
            utilization=minutes / 10_000,
        )
    path = f"/accounts/{account.pk}"
    since = (now - timedelta(minutes=2)).isoformat().replace("+00:00", "Z")

    (window,) = call("GET", f"{path}/windows").body
    day = call("GET", f"{path}/series?window=5h").body["items"]
    late = call("GET", f"{path}/series?window=5h&since={since}").body["items"]

    assert (window["name"], window["utilization"]) == ("5h", 0.5)
    assert [sample["utilization"] for sample in day] == [0.0003, 0.0002, 0.0001]
    assert [sample["utilization"] for sample in late] == [0.0002, 0.0001]
    assert call("GET", f"{path}/series?window=7d").body["items"] == []


def test_a_window_tells_when_it_runs_out(call: Call, account: Account) -> None:
    now = timezone.now()
    reset = now + timedelta(hours=4)
    told = {"account": account, "name": "5h", "reset_at": reset}
    LimitWindow.objects.create(**told, utilization=0.6, observed_at=now)
    for minutes, used in ((60, 0.0), (30, 0.3), (0, 0.6)):
        at = (now - timedelta(minutes=minutes)).replace(second=0, microsecond=0)
        WindowSample.objects.create(**told, at=at, utilization=used)

    (window,) = call("GET", f"/accounts/{account.pk}/windows").body

    assert 0.5 < window["rate_per_hour"] < 0.7
    assert now.isoformat() < window["runs_out_at"] < reset.isoformat()


@threads
def test_no_answer_holds_a_secret(call: Call, simulator: Simulator, account: Account) -> None:
    simulator.person("ada@example.com")
    begun = call("POST", "/accounts/oauth/start").body
    pasted = simulator.authorize(begun["url"], "ada@example.com")
    given = {"flow_id": begun["flow_id"], "pasted": pasted}
    answers = [call("POST", "/accounts/oauth/complete", given)]
    for row in Account.objects.all():
        for path in ("", "/history", "/windows"):
            answers.append(call("GET", f"/accounts/{row.pk}{path}"))
        answers += [call("POST", f"/accounts/{row.pk}/{verb}") for verb in ("test", "refresh")]
    for path in ("/accounts", "/events", "/admin/statistics", "/openapi.json"):
        answers.append(call("GET", path))

    secrets = [row.secret_hash for row in Account.objects.all()]
    for credential in Credential.objects.all():
        secrets += [credential.access_token, credential.refresh_token]
        secrets.append(credential.__dict__["access_token"])
    flow = LinkFlow.objects.get()
    secrets += [flow.verifier, flow.session, pasted.partition("#")[0]]
    wanted = [secret for secret in secrets if secret]

    assert len(wanted) >= 9
    assert not [one for one in wanted for answer in answers if one in answer.content.decode()]


def test_the_token_itself_is_in_no_answer(call: Call, token: str, client: Client) -> None:
    hashes = [tokens._hash(token), token]

    answers = [call("GET", path) for path in ("/events", "/accounts")]

    assert not [one for one in hashes for answer in answers if one in answer.content.decode()]
