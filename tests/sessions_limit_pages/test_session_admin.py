"""Sessions, revocations and keys in Django admin: to read, to revoke after one question."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from accounts.models import Account
from lib.redis import for_jobs
from sessions_limit import keys, presence
from sessions_limit.models import ClientKey, ClientSession, Revocation

SESSIONS = "/admin/sessions_limit/clientsession/"
KEYS = "/admin/sessions_limit/clientkey/"
HOSTILE = "<script>alert(1)</script>"
pytestmark = pytest.mark.django_db


@pytest.fixture
def admin_user(db: None) -> User:
    """An operator without a password: hashing one takes longer than a page."""
    return User.objects.create(username="admin", is_staff=True, is_superuser=True)


@pytest.fixture
def key() -> ClientKey:
    return keys.create("laptop", by="ada")[0]


@pytest.fixture(autouse=True)
def under_way() -> Iterator[dict[str, str]]:
    """What a web process tells of what it has under way."""
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()
        told = {"alive": ""}
        client.sadd(presence.PROCESSES, "web")
        client.hset(f"{presence.PROCESSES}:web", mapping=told)
        yield told
        client.flushdb()


def session(key: ClientKey, name: str = "conversation", **fields: Any) -> ClientSession:
    now = timezone.now()
    return ClientSession.objects.create(
        uid=f"{ClientSession.objects.count():016x}",
        key=key,
        client=f"key:{key.pk}",
        session=name,
        **{"started_at": now - timedelta(hours=1), "last_seen_at": now} | fields,
    )


def streams_run(row: ClientSession, in_flight: int, streams: int) -> None:
    with contextlib.closing(for_jobs()) as client:
        place = f"{presence.PROCESSES}:web"
        client.hset(place, presence.SESSION + row.name, f"{in_flight} {streams}")


def send(client: Client, path: str, action: str, *rows: Any, **more: str) -> str:
    """Choose an action for rows; return the text of the page that comes, without its markup."""
    given = {"action": action, "_selected_action": [str(row.pk) for row in rows]}
    answer = client.post(path, given | more, follow=True)
    assert answer.status_code == 200
    return " ".join(re.sub("<[^>]*>", " ", answer.content.decode()).split())


def test_the_list_tells_everything_of_a_session(admin_client: Client, key: ClientKey) -> None:
    account = Account.objects.create(name="pool one", kind="api_key")
    agent = f"claude-cli {HOSTILE}"
    row = session(key, account=account, address="203.0.113.5", user_agent=agent, requests=41)
    session(key, "e" * 40, ended_at=timezone.now(), ended="idle")
    streams_run(row, 38, 37)

    text = admin_client.get(SESSIONS).content.decode()

    wanted = ("conversation", f"key:{key.pk}", "laptop", "203.0.113.5", "pool one", "claude-cli")
    for part in (*wanted, ">41<", ">38<", ">37<", "living", "ended", "idle", f">{'e' * 13}…"):
        assert part in text, part
    assert HOSTILE not in text
    one = admin_client.get(f"{SESSIONS}{row.pk}/change/").content.decode()
    assert "38" in one


def test_many_sessions_cost_as_many_questions_as_one(
    admin_client: Client, key: ClientKey, django_assert_num_queries: Any
) -> None:
    session(key)
    with django_assert_num_queries(5):
        admin_client.get(SESSIONS)
    other, _ = keys.create("other", by="ada")
    for number in range(5):
        session(other, f"{number}", account=Account.objects.create(name=f"{number}", kind="oauth"))

    with django_assert_num_queries(5):
        admin_client.get(SESSIONS)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=living", ["alive"]),
        ("state=ended", ["gone"]),
        ("state=nonsense", ["alive", "gone"]),
        ("ended=idle", ["gone"]),
        ("q=alive", ["alive"]),
        ("q=203.0.113.9", ["gone"]),
        ("q=laptop", ["alive", "gone"]),
    ],
)
def test_sessions_are_filtered_and_found(
    admin_client: Client, key: ClientKey, query: str, found: list[str]
) -> None:
    session(key, "alive")
    session(key, "gone", ended_at=timezone.now(), ended="idle", address="203.0.113.9")

    text = admin_client.get(f"{SESSIONS}?{query}").content.decode()

    assert sorted(re.findall(r">(alive|gone)</a>", text)) == found


def test_revoking_asks_once_and_says_what_is_cut(admin_client: Client, key: ClientKey) -> None:
    first, second = session(key, "a"), session(key, "b")
    gone = session(key, "c", ended_at=timezone.now(), ended="idle")
    streams_run(first, 3, 2), streams_run(second, 9, 9), streams_run(gone, 8, 8)

    asked = send(admin_client, SESSIONS, "revoke", first, gone)
    untouched = Revocation.objects.count()
    done = send(admin_client, SESSIONS, "revoke", first, gone, confirmed="yes")

    assert "Living sessions that end now: 1. Live streams that are cut: 2." in asked
    assert "Sessions that have ended, and may not go on either: 1." in asked
    assert untouched == 0
    assert "Revoked sessions: 2." in done
    revoked = set(Revocation.objects.values_list("name", "by", "target"))
    assert revoked == {(row.name, "admin", "session") for row in (first, gone)}
    assert list(ClientSession.objects.filter(ended="revoked")) == [first]


def test_all_pages_can_be_chosen_at_once(admin_client: Client, key: ClientKey) -> None:
    rows = [session(key, f"{number}") for number in range(3)]

    asked = send(admin_client, SESSIONS, "revoke", rows[0], select_across="1")
    send(admin_client, SESSIONS, "revoke", rows[0], select_across="1", confirmed="yes")

    assert "Living sessions that end now: 3." in asked
    assert Revocation.objects.count() == 3


def test_the_sessions_of_keys_are_revoked_and_the_keys_stay(
    admin_client: Client, key: ClientKey
) -> None:
    other, _ = keys.create("other", by="ada")
    row, untouched = session(key), session(other)
    streams_run(row, 1, 1), streams_run(untouched, 4, 4)

    asked = send(admin_client, KEYS, "revoke_sessions", key)
    done = send(admin_client, KEYS, "revoke_sessions", key, confirmed="yes")

    assert "Living sessions that end now: 1. Live streams that are cut: 1." in asked
    assert "Revoked sessions: 1." in done
    assert ClientSession.objects.get(ended="revoked") == row
    key.refresh_from_db()
    assert key.state == "active"


def test_keys_are_revoked_after_a_question(admin_client: Client, key: ClientKey) -> None:
    gone, _ = keys.create("gone", by="ada")
    keys.revoke(gone, by="ada")
    streams_run(session(key), 2, 1)

    asked = send(admin_client, KEYS, "revoke", key, gone)
    key.refresh_from_db()
    untouched = key.state
    done = send(admin_client, KEYS, "revoke", key, gone, confirmed="yes")
    again = send(admin_client, KEYS, "revoke", key, gone)

    assert "Keys that end for good: 1. This cannot be undone." in asked
    assert "Living sessions that end now: 1. Live streams that are cut: 1." in asked
    assert "refused for a while" not in asked
    assert untouched == "active"
    assert "Revoked: 1." in done
    assert "Revoked: 0." in again
    key.refresh_from_db()
    assert key.state == "revoked"


def test_revocations_are_shown(admin_client: Client, key: ClientKey) -> None:
    send(admin_client, SESSIONS, "revoke", session(key), confirmed="yes")

    text = admin_client.get("/admin/sessions_limit/revocation/").content.decode()

    assert f"key:{key.pk}/conversation" in text


def test_the_terms_of_a_key_are_shown_and_its_hashes_never(
    admin_client: Client, key: ClientKey
) -> None:
    ClientKey.objects.update(
        owner="Ada L.",
        model_patterns=["claude-haiku-*"],
        tokens_per_day=77_001,
        previous_hash="f" * 64,
        previous_until=timezone.now(),
        last_addresses=["203.0.113.7"],
    )

    text = admin_client.get(f"{KEYS}{key.pk}/change/").content.decode()

    for part in ("Ada L.", "claude-haiku-*", "77001", "203.0.113.7", key.hint):
        assert part in text, part
    for secret in (key.hash, "f" * 64):
        assert secret not in text
        assert secret not in admin_client.get(KEYS).content.decode()


@pytest.mark.parametrize(
    ("path", "lookup"),
    [
        (KEYS, "hash__startswith"),
        (KEYS, "previous_hash__startswith"),
        (SESSIONS, "key__hash__startswith"),
        (SESSIONS, "key__previous_hash"),
    ],
)
def test_nobody_guesses_a_hash_by_filtering(
    admin_client: Client, key: ClientKey, path: str, lookup: str
) -> None:
    assert admin_client.get(f"{path}?{lookup}=a").status_code == 400


@pytest.mark.parametrize("table", ["clientkey", "clientsession", "revocation"])
def test_nothing_is_added_edited_or_deleted_by_hand(admin_client: Client, table: str) -> None:
    assert admin_client.get(f"/admin/sessions_limit/{table}/add/").status_code == 403
    assert b"delete_selected" not in admin_client.get(f"/admin/sessions_limit/{table}/").content


def test_whoever_may_only_look_cannot_revoke(client: Client, key: ClientKey) -> None:
    user = User.objects.create(username="eve", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_clientsession"))
    client.force_login(user)
    row = session(key)

    send(client, SESSIONS, "revoke", row, confirmed="yes")

    assert client.get(SESSIONS).status_code == 200
    assert not Revocation.objects.exists()
