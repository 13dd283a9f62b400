"""What goes wrong with a call is problem JSON, whatever was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from accounts import cards
from accounts.models import Account
from events import journal
from tests.api.conftest import Call

pytestmark = pytest.mark.django_db


def is_problem(answer: Any, status: int) -> bool:
    assert answer.status_code == status, answer.content
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body = json.loads(answer.content)
    assert body["type"] == "about:blank"
    assert body["status"] == status
    assert body["title"]
    return bool(body["detail"])


@pytest.mark.parametrize(
    "path", ["/api/nothing", "/api/accounts/", "/api/accounts/x", "/api/accounts/-1", "/api/%00"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_address_is_a_problem(client: Client, method: str, path: str) -> None:
    assert is_problem(client.generic(method, path), 404)


def test_the_roots_of_the_api_lead_to_its_page(client: Client) -> None:
    assert client.get("/api/").headers["location"] == "/api/docs"


@pytest.mark.parametrize("path", ["/api/accounts", "/api/events", "/api/accounts/1/enable"])
def test_a_wrong_method_is_a_problem(client: Client, path: str) -> None:
    answer = client.put(path)

    assert is_problem(answer, 405)
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    "query",
    [
        "/accounts?limit=0",
        "/accounts?limit=x",
        "/accounts?cursor=99999999999999999999",
        "/accounts?status=nonsense",
        "/accounts?label=%00",
        "/accounts?label=%ED%A0%80",
        "/events?kind=%00",
        "/events?before=0",
        "/events?subject=" + "x" * 200,
        "/events?since=yesterday",
        "/events?since=2026-01-01T00:00:00",
        "/events?since=0001-01-01T00:00:00%2B23:59",
        "/accounts/1/series?window=%00",
        "/accounts/1/series?window=5h&until=0001-01-01T00:00:00Z",
        "/accounts/1/series",
        "/accounts/99999999999999999999",
    ],
)
def test_a_query_that_cannot_be_is_a_problem(call: Call, query: str) -> None:
    answer = call("GET", query)

    assert is_problem(answer, 422)
    assert len(answer.body["errors"]) == 1


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff", b"[" * 100_000, b"nonsense", b'{"priority":' + b"1" * 5000 + b"}"],
)
def test_a_body_that_is_no_json_is_a_problem(token: str, account: Account, body: bytes) -> None:
    client = Client(headers={"authorization": f"Bearer {token}"})

    answer = client.generic(
        "PATCH", f"/api/accounts/{account.pk}", body, content_type="application/json"
    )

    assert is_problem(answer, 400)


@pytest.mark.parametrize("body", [b"null", b"[]", b"1", b'"x"', b"NaN", b'{"name": "\\ud800"}'])
def test_a_body_that_is_something_else_is_a_problem(
    token: str, account: Account, body: bytes
) -> None:
    client = Client(headers={"authorization": f"Bearer {token}"})

    answer = client.generic(
        "PATCH", f"/api/accounts/{account.pk}", body, content_type="application/json"
    )

    assert is_problem(answer, 422)


@pytest.mark.parametrize(
    ("status", "given"),
    [
        (413, {"data": b"x" * 300_000, "content_type": "application/json"}),
        (415, {"data": b"{}", "content_type": "text/plain"}),
        (415, {"data": b"a=b", "content_type": "application/x-www-form-urlencoded"}),
        (411, {"data": b"", "HTTP_TRANSFER_ENCODING": "chunked"}),
        (400, {"data": b"", "CONTENT_LENGTH": "-1"}),
        (413, {"data": b"", "CONTENT_LENGTH": "9" * 5000}),
    ],
)
def test_a_body_of_the_wrong_size_or_kind_is_not_read(
    token: str, status: int, given: dict[str, Any]
) -> None:
    client = Client(headers={"authorization": f"Bearer {token}"})

    assert is_problem(client.generic("POST", "/api/accounts", **given), status)


def test_what_was_sent_is_not_repeated(call: Call) -> None:
    answer = call("POST", "/accounts", {"kind": "api_key", "name": 7, "secret": ["sk-ant-x"]})

    assert is_problem(answer, 422)
    assert set(answer.body["errors"]) == {"name", "secret"}
    assert "sk-ant-x" not in answer.content.decode()


@pytest.mark.parametrize(
    ("method", "path", "given"),
    [
        ("POST", "/accounts", {"kind": "sk-ant-x", "name": "a", "secret": "b"}),
        ("POST", "/accounts", {"kind": "api_key", "name": "a", "secret": "b", "sk-ant-x": 1}),
        ("POST", "/accounts", {"kind": "compatible", "name": "a", "auth": "sk-ant-x"}),
        ("PATCH", "/accounts/1", {"model_map": {"sk-ant-x": 1}}),
        ("PATCH", "/accounts/1", {"priority": "sk-ant-x"}),
        ("PATCH", "/accounts/1", {"labels": "sk-ant-x"}),
        ("GET", "/events?since=sk-ant-x", None),
        ("GET", "/events?since=2026-01-01T00:00:00Zsk-ant-x", None),
        ("GET", "/accounts?status=sk-ant-x", None),
        ("GET", "/usage?metric=sk-ant-x", None),
    ],
)
def test_no_part_of_what_cannot_be_comes_back(
    call: Call, method: str, path: str, given: dict[str, Any] | None
) -> None:
    answer = call(method, path, given)

    assert answer.status_code == 422
    assert "sk-ant-x" not in answer.content.decode()
    assert all(answer.body.get("errors", {"": "x"}).values())


def test_what_nobody_foresaw_is_told_without_its_details(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(cards, "load", breaks)

    answer = call("GET", "/accounts")

    assert is_problem(answer, 500)
    assert "detail" not in answer.body["detail"]
    assert "Traceback" not in answer.content.decode()


def test_events_are_listed_by_pages_and_filters(call: Call, db: None) -> None:
    for number in range(4):
        journal.record(f"test.{number % 2}", f"thing:{number}", by="ada", number=number)

    def numbers(query: str) -> list[int]:
        items = call("GET", f"/events?{query}").body["items"]
        return [item["data"]["number"] for item in items]

    first = call("GET", "/events?kind=test.&limit=3").body
    assert [item["subject"] for item in first["items"]] == ["thing:3", "thing:2", "thing:1"]
    assert numbers(f"kind=test.&limit=3&before={first['next']}") == [0]
    assert numbers("kind=test.1") == [3, 1]
    assert numbers("subject=thing:2") == [2]
    assert numbers("kind=test") == []
    assert numbers("kind=test.&since=2099-01-01T00:00:00Z") == []
    assert len(numbers("kind=test.&until=2099-01-01T00:00:00Z")) == 4
