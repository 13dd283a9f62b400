"""The sessions of clients in the admin API: listed, shown and revoked."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Account
from events.models import Event
from lib.redis import for_jobs
from sessions_limit import keys, presence
from sessions_limit.models import ClientKey, ClientSession, Revocation
from tests.api.conftest import Call

NOWHERE = "f" * 16
pytestmark = pytest.mark.django_db


@pytest.fixture
def key() -> ClientKey:
    return keys.create("laptop", by="ada")[0]


def session(key: ClientKey, name: str = "a", **fields: Any) -> ClientSession:
    now = timezone.now()
    return ClientSession.objects.create(
        uid=f"{ClientSession.objects.count():016x}",
        key=key,
        session=name,
        **{
            "client": f"key:{key.pk}",
            "started_at": now - timedelta(hours=1),
            "last_seen_at": now,
            "address": "203.0.113.5",
        }
        | fields,
    )


def revoked() -> set[str]:
    return set(ClientSession.objects.filter(ended="revoked").values_list("session", flat=True))


def test_a_session_is_told_whole(call: Call, key: ClientKey) -> None:
    account = Account.objects.create(name="pool", kind="api_key")
    row = session(key, account=account, user_agent="claude-cli", requests=7)
    with contextlib.closing(for_jobs()) as client:
        client.sadd(presence.PROCESSES, "web")
        client.hset(f"{presence.PROCESSES}:web", presence.SESSION + row.name, "3 2")

    told = call("GET", f"/sessions/{row.uid}").body

    assert told == {
        "id": row.uid,
        "key": key.pk,
        "key_name": "laptop",
        "client": f"key:{key.pk}",
        "session": "a",
        "address": "203.0.113.5",
        "user_agent": "claude-cli",
        "account": account.pk,
        "account_name": "pool",
        "started_at": told["started_at"],
        "last_seen_at": told["last_seen_at"],
        "requests": 7,
        "in_flight": 3,
        "streams": 2,
        "ended_at": None,
        "ended": "",
    }
    assert call("GET", "/sessions").body == {"items": [told], "next": None}


def test_sessions_are_listed_by_pages_and_filters(call: Call, key: ClientKey) -> None:
    other, _ = keys.create("other", by="ada")
    for name in "abc":
        session(key, name)
    session(other, "d", client="ip:2001:db8::/64", address="2001:db8::1")
    session(key, "e", ended_at=timezone.now(), ended="idle")

    def names(query: str) -> str:
        return "".join(item["session"] for item in call("GET", f"/sessions?{query}").body["items"])

    first = call("GET", "/sessions?limit=2").body
    assert [item["session"] for item in first["items"]] == ["d", "c"]
    assert names(f"limit=2&cursor={first['next']}") == "ba"
    assert call("GET", "/sessions?limit=4").body["next"] is None
    assert names("state=ended") == "e"
    assert names("state=all") == "edcba"
    assert names(f"key={key.pk}") == "cba"
    assert names("client=ip:2001:db8::/64") == "d"
    assert names("address=2001:DB8:0::1") == "d"
    assert names("address=203.0.113.6") == ""


def test_a_list_takes_as_many_queries_for_many_as_for_one(
    call: Call, key: ClientKey, django_assert_num_queries: Any
) -> None:
    call("GET", "/sessions")  # its token's last use is written now
    for number in range(3):
        account = Account.objects.create(name=f"{number}", kind="api_key")
        session(keys.create(f"{number}", by="ada")[0], f"{number}", account=account)

    with django_assert_num_queries(2):
        assert len(call("GET", "/sessions").body["items"]) == 3


def test_one_session_is_revoked(call: Call, key: ClientKey) -> None:
    row = session(key, "a")
    session(key, "b")

    told = call("POST", f"/sessions/{row.uid}/revoke").body

    assert (told["id"], told["ended"]) == (row.uid, "revoked")
    assert told["ended_at"] is not None
    assert revoked() == {"a"}
    assert Event.objects.get(kind="session.revoke").by == "token deploy"


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"key": 0}, {"a", "b"}),
        ({"address": "203.0.113.5"}, {"a", "c"}),
        ({"all": True}, {"a", "b", "c"}),
        ({"all": True, "key": None}, {"a", "b", "c"}),
    ],
)
def test_many_are_revoked(
    call: Call, key: ClientKey, body: dict[str, Any], names: set[str]
) -> None:
    other, _ = keys.create("other", by="ada")
    session(key, "a"), session(key, "b", address="203.0.113.6"), session(other, "c")
    if body.get("key") == 0:
        body = {"key": key.pk}

    answer = call("POST", "/sessions/revoke", body)

    assert (answer.status_code, answer.body) == (200, {"revoked": len(names)})
    assert revoked() == names


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"key": None}, "body"),
        ({"key": 1, "all": True}, "body"),
        ({"address": "203.0.113.5", "all": True}, "body"),
        ({"all": False}, "all"),
        ({"all": "true"}, "all"),
        ({"key": 999_999}, "key"),
        ({"key": "1"}, "key"),
        ({"key": 2**63}, "key"),
        ({"address": "laptop"}, "address"),
        ({"address": ""}, "address"),
        ({"address": "x" * 100}, "address"),
        ({"session": "a"}, "session"),
    ],
)
def test_what_does_not_say_one_thing_is_refused(
    call: Call, key: ClientKey, body: dict[str, Any], field: str
) -> None:
    session(key)

    answer = call("POST", "/sessions/revoke", body)

    assert answer.status_code == 422
    assert answer.body["errors"].keys() == {field}
    assert not Revocation.objects.exists()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/sessions/{NOWHERE}", 404),
        ("POST", f"/sessions/{NOWHERE}/revoke", 404),
        ("GET", "/sessions/nonsense", 422),
        ("POST", "/sessions/nonsense/revoke", 422),
        ("GET", "/sessions/revoke", 405),
        ("GET", "/sessions?state=nonsense", 422),
        ("GET", "/sessions?key=0", 422),
        ("GET", "/sessions?address=laptop", 422),
        ("GET", "/sessions?client=%00", 422),
    ],
)
def test_what_is_not_there_or_not_plain(call: Call, method: str, path: str, status: int) -> None:
    assert call(method, path).status_code == status
