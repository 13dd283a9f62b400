"""`manage.py session`: list and revoke, for people and for programs."""

from __future__ import annotations

import contextlib
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.models import Account
from events.models import Event
from lib.redis import for_jobs
from sessions_limit import keys, presence
from sessions_limit.models import ClientKey, ClientSession, Revocation
from tests.lib.conftest import OwnValkey, own_valkey

__all__ = ["own_valkey"]

WANTED = {"id", "key", "client", "session", "account", "started_at", "last_seen_at", "in_flight"}
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _empty_valkey() -> None:
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()


@pytest.fixture
def key() -> ClientKey:
    return keys.create("laptop", by="ada")[0]


def session(key: ClientKey, name: str = "a", **fields: Any) -> ClientSession:
    now = timezone.now()
    return ClientSession.objects.create(
        uid=f"{ClientSession.objects.count():016x}",
        key=key,
        client=f"key:{key.pk}",
        session=name,
        **{"started_at": now - timedelta(hours=1), "last_seen_at": now, "address": "203.0.113.5"}
        | fields,
    )


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("session", *args, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def answer(*args: str) -> Any:
    return json.loads(run(*args, "--json"))


def refusal(*args: str) -> str:
    with pytest.raises(CommandError) as raised:
        run(*args)
    assert raised.value.returncode == 1
    return str(raised.value)


def revoked() -> set[str]:
    return set(ClientSession.objects.filter(ended="revoked").values_list("session", flat=True))


def test_list_tells_all_of_what_lives(key: ClientKey) -> None:
    account = Account.objects.create(name="pool", kind="api_key")
    row = session(key, account=account, user_agent="claude-cli", requests=7)
    session(key, "gone", ended_at=timezone.now(), ended="idle")
    with contextlib.closing(for_jobs()) as client:
        client.sadd(presence.PROCESSES, "web")
        client.hset(f"{presence.PROCESSES}:web", presence.SESSION + row.name, "3 2")

    (told,) = answer("list")

    assert told.keys() >= WANTED
    assert told["id"] == row.uid
    assert (told["key"], told["key_name"]) == (key.pk, "laptop")
    assert (told["account"], told["account_name"]) == (account.pk, "pool")
    assert (told["client"], told["session"]) == (f"key:{key.pk}", "a")
    assert (told["in_flight"], told["streams"], told["requests"]) == (3, 2, 7)
    assert told["started_at"] == row.started_at.isoformat()
    assert (told["ended_at"], told["ended"]) == (None, "")
    text = run("list")
    assert all(part in text for part in (row.uid, "laptop", "pool"))
    assert "gone" not in text


def test_list_tells_of_one_key_and_of_what_has_ended(key: ClientKey) -> None:
    other, _ = keys.create("other", by="ada")
    session(key, "a"), session(other, "b")
    session(key, "c", ended_at=timezone.now(), ended="idle")

    def names(*args: str) -> set[str]:
        return {row["session"] for row in answer("list", *args)}

    assert names() == {"a", "b"}
    assert names("--all") == {"a", "b", "c"}
    assert names("--key", "laptop") == names("--key", str(key.pk)) == {"a"}
    assert names("--key", str(key.pk), "--all") == {"a", "c"}


def test_a_name_means_the_key_that_is_not_revoked(key: ClientKey) -> None:
    keys.revoke(key, by="ada")
    revoked = answer("list", "--key", "laptop")
    second, _ = keys.create("laptop", by="ada")
    session(key, "a"), session(second, "b")

    assert revoked == []
    assert answer("list", "--key", "laptop")[0]["key"] == second.pk
    assert answer("revoke", "--key", "laptop") == {"revoked": 1}


def test_a_list_for_people_tells_that_nothing_is_under_way(key: ClientKey) -> None:
    session(key, "a", requests=3)

    head, row = (line.split() for line in run("list").splitlines())

    # The account and the reason are not there, the number is.
    assert dict(zip(head, row, strict=True))["in_flight"] == "0"
    assert row.count("-") == 2


def test_a_list_costs_one_question_for_many_as_for_one(
    key: ClientKey, django_assert_num_queries: Any
) -> None:
    for number in range(4):
        account = Account.objects.create(name=f"{number}", kind="api_key")
        session(keys.create(f"{number}", by="ada")[0], f"{number}", account=account)

    with django_assert_num_queries(1):
        assert len(answer("list")) == 4


def test_one_session_is_revoked_by_either_of_its_ids(key: ClientKey) -> None:
    first = session(key, "a")
    session(key, "b"), session(key, "c")

    told = answer("revoke", first.uid)

    assert (told["revoked"], told["id"], told["ended"]) == (1, first.uid, "revoked")
    assert told.keys() > WANTED
    assert run("revoke", "b").strip() == "revoked 1 session"
    assert revoked() == {"a", "b"}
    assert Event.objects.filter(kind="session.revoke", by="command line").count() == 2


@pytest.mark.parametrize(
    ("args", "count"),
    [
        (("--key", "laptop"), 2),
        (("--address", "203.0.113.5"), 1),
        (("--address", "203.0.113.99"), 0),
        (("--all",), 3),
    ],
)
def test_many_are_revoked(key: ClientKey, args: tuple[str, ...], count: int) -> None:
    other, _ = keys.create("other", by="ada")
    session(key, "a"), session(key, "b", address="203.0.113.6")
    session(other, "c", address="203.0.113.7")

    assert answer("revoke", *args) == {"revoked": count}
    assert len(revoked()) == count
    assert run("revoke", *args).strip() == "revoked 0 sessions"


def test_it_works_while_redis_is_away(key: ClientKey, own_valkey: OwnValkey) -> None:
    row = session(key)
    own_valkey.kill()

    assert answer("list")[0]["in_flight"] == 0
    assert answer("revoke", row.uid)["revoked"] == 1


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("revoke", "nonsense"), "there is no session 'nonsense'"),
        (("revoke", "gone"), "there is no session 'gone'"),
        (("revoke", "x\0y\udcff"), "there is no session"),
        (("revoke", "both"), "several sessions are called 'both'; use the id"),
        (("revoke", "--key", "none"), "there is no key 'none'"),
        (("revoke", "--key", "x\0y\udcff"), "there is no key"),
        (("revoke", "--key", "twin"), "several keys are named 'twin'; use the id"),
        (("revoke", "--key", "9" * 18), "there is no key"),
        (("revoke", "--address", "laptop"), "--address: 'laptop' is not an IP address"),
        (("list", "--key", "none"), "there is no key 'none'"),
        (("revoke",), "one of the arguments"),
        (("revoke", "a", "--all"), "not allowed with argument"),
    ],
)
def test_what_is_not_plain_is_refused(key: ClientKey, args: tuple[str, ...], text: str) -> None:
    session(key, "gone", ended_at=timezone.now(), ended="idle")
    twins = [keys.create("twin", by="ada")[0] for _ in range(2)]
    for twin in twins:
        session(twin, "both")

    assert text in refusal(*args)
    assert not Revocation.objects.exists()
