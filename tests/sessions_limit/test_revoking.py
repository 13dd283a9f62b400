"""Revoking sessions: the rows are the truth, and nobody who was meant gets away."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.db import connections
from django.utils import timezone

from events.models import Event
from lib import bus
from lib.redis import for_jobs
from sessions_limit import bans, keys, limiter, revoking, targets
from sessions_limit.models import ClientKey, ClientSession, Revocation
from tests.lib.conftest import OwnValkey, own_valkey

__all__ = ["own_valkey"]

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BAN = timedelta(minutes=15)
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def client() -> Iterator[redis.Redis]:
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture
def key() -> ClientKey:
    return keys.create("laptop", by="ada")[0]


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What this process hears of changes, and how many rows there were then."""
    heard: list[str] = []

    def hear() -> None:
        heard.append(f"{Revocation.objects.count()} rows")

    bus.on(bans.BANS, hear)
    yield heard
    bus._handlers[bans.BANS].remove(hear)


def session(
    key: ClientKey, name: str = "a", *, begun: float = 60, client: str = "", **fields: Any
) -> ClientSession:
    number = ClientSession.objects.count()
    return ClientSession.objects.create(
        uid=f"{number:016x}",
        key=key,
        client=client or f"key:{key.pk}",
        session=name,
        started_at=NOW - timedelta(seconds=begun),
        last_seen_at=NOW,
        **{"address": "203.0.113.5"} | fields,
    )


def ended() -> list[str]:
    """Return the uids' last digit of those that were revoked."""
    rows = ClientSession.objects.filter(ended="revoked", ended_at__isnull=False)
    return sorted(uid[-1] for uid in rows.values_list("uid", flat=True))


def banned() -> dict[str, datetime]:
    return dict(Revocation.objects.values_list("name", "until"))


def in_redis(name: str) -> None:
    """Let Redis know a living session that the record does not know."""
    with contextlib.closing(for_jobs()) as client:
        client.zadd(limiter.ALL, {name: timezone.now().timestamp() + 100})


def test_one_session_is_revoked(key: ClientKey, told: list[str]) -> None:
    row, _ = session(key, "a"), session(key, "b")

    assert revoking.revoke_session(row, by="ada", now=NOW) == 1

    assert ended() == ["0"]
    row.refresh_from_db()
    assert row.ended_at == NOW
    made = Revocation.objects.get()
    assert (made.name, made.until, made.made_at) == (row.name, NOW + BAN, NOW)
    assert (made.by, made.target) == ("ada", "session")
    event = Event.objects.get(kind="session.revoke")
    assert (event.subject, event.by, event.data["name"]) == (f"session:{row.uid}", "ada", "a")
    assert told == ["1 rows"]


def test_redis_refuses_it_and_its_slots_are_free(key: ClientKey, client: redis.Redis) -> None:
    row, now = session(key), timezone.now()
    in_redis(row.name)
    client.hset(limiter.lease(row.name), mapping={"since": 1, "until": 2e9, "scopes": limiter.ALL})

    revoking.revoke_session(row, by="ada", now=now)

    kept = client.hgetall(limiter.lease(row.name))
    assert kept.keys() == {"banned"}
    assert float(kept["banned"]) == pytest.approx((now + BAN).timestamp(), abs=0.01)
    assert limiter.living() == []


def test_a_session_that_has_ended_is_refused_all_the_same(key: ClientKey) -> None:
    row = session(key, ended_at=NOW, ended="idle")

    assert revoking.revoke_session(row, by="ada", now=NOW) == 1

    row.refresh_from_db()
    assert row.ended == "idle"
    assert banned() == {row.name: NOW + BAN}


def test_revoking_again_only_lengthens(key: ClientKey, settings: Any) -> None:
    row = session(key)
    revoking.revoke_session(row, by="ada", now=NOW)

    revoking.revoke_session(row, by="bob", now=NOW + timedelta(minutes=5))
    longer = banned()
    settings.CONFIG = settings.CONFIG.model_copy(update={"session_ban_seconds": 60.0})
    revoking.revoke_all(by="eve", now=NOW + timedelta(minutes=6))

    assert longer == {row.name: NOW + BAN + timedelta(minutes=5)}
    assert banned()[row.name] == longer[row.name]


def test_the_sessions_of_a_key_are_revoked_and_the_key_stays_good(key: ClientKey) -> None:
    other, _ = keys.create("other", by="ada")
    session(key, "a"), session(key, "b"), session(other, "c")
    session(key, "d", ended_at=NOW, ended="idle")
    in_redis(f"key:{key.pk}/fresh")
    in_redis(f"key:{other.pk}/fresh")

    assert revoking.revoke_sessions_of_key(key, by="ada", now=NOW) == 3

    assert ended() == ["0", "1"]
    wide, mine = targets.of_key(key.pk), f"key:{key.pk}"
    assert banned().keys() == {wide, f"{mine}/a", f"{mine}/b", f"{mine}/fresh"}
    assert set(Revocation.objects.values_list("target", flat=True)) == {wide}
    key.refresh_from_db()
    assert key.state == "active"
    event = Event.objects.get(kind="session.revoke_of")
    assert (event.subject, event.data) == (f"key:{key.pk}", {"name": "laptop", "count": 3})


@pytest.mark.parametrize(
    ("address", "given", "block"),
    [
        ("203.0.113.5", "203.0.113.5", "203.0.113.5"),
        ("203.0.113.5", "::ffff:203.0.113.5", "203.0.113.5"),
        ("2001:db8::1", "2001:db8::2", "2001:db8::/64"),
        ("2001:db8::1", "2001:DB8:0::/64", "2001:db8::/64"),
    ],
)
def test_the_sessions_of_an_address_are_revoked(
    key: ClientKey, address: str, given: str, block: str
) -> None:
    session(key, "a", address=address)
    session(key, "b", address="203.0.113.55"), session(key, "c", address="2001:db8:0:1::1")
    session(key, "d", address="")
    for client in (f"ip:{block}", f"ip:{block}|0123abcd", "ip:203.0.113.55", "ip:2001:db8:1::/64"):
        in_redis(f"{client}/fresh")

    assert revoking.revoke_sessions_of_address(given, by="ada", now=NOW) == 3

    assert ended() == ["0"]
    assert banned().keys() == {
        f"address:{block}",
        f"key:{key.pk}/a",
        f"ip:{block}/fresh",
        f"ip:{block}|0123abcd/fresh",
    }
    assert Event.objects.get(kind="session.revoke_of").subject == f"address:{block}"


@pytest.mark.parametrize("text", ["", "local", "203.0.113", "203.0.113.0/24", "\0", "1" * 10_000])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(revoking.NoAddress, match="is not an IP address"):
        revoking.revoke_sessions_of_address(text, by="ada")

    assert not Revocation.objects.exists()
    assert not Event.objects.filter(kind__startswith="session.").exists()


def test_everything_is_revoked(key: ClientKey, told: list[str]) -> None:
    session(key, "a"), session(key, "b", client="ip:203.0.113.5")
    in_redis("ip:2001:db8::/64/default")

    assert revoking.revoke_all(by="ada", now=NOW) == 3

    assert ended() == ["0", "1"]
    assert banned().keys() == {
        "all",
        f"key:{key.pk}/a",
        "ip:203.0.113.5/b",
        "ip:2001:db8::/64/default",
    }
    assert Event.objects.get(kind="session.revoke_all").data == {"count": 3}
    assert told == ["4 rows"]


def test_many_are_revoked_in_batches(key: ClientKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoking, "BATCH", 3)
    for number in range(10):
        session(key, f"{number}")

    assert revoking.revoke_all(by="ada", now=NOW) == 10

    assert len(ended()) == 10
    assert len(banned()) == 11


def test_redis_away_is_no_error(key: ClientKey, own_valkey: OwnValkey, told: list[str]) -> None:
    session(key)
    own_valkey.kill()

    assert revoking.revoke_all(by="ada", now=NOW) == 1

    assert ended() == ["0"]
    assert told == ["2 rows"]


class TestCatchingUp:
    """What was not known yet when it was revoked is ended as soon as it is."""

    @pytest.mark.parametrize("kind", ["key", "address", "all"])
    def test_a_wide_revocation_ends_what_began_before_it(self, key: ClientKey, kind: str) -> None:
        other, _ = keys.create("other", by="ada")
        verbs = {
            "key": lambda: revoking.revoke_sessions_of_key(key, by="ada", now=NOW),
            "address": lambda: revoking.revoke_sessions_of_address("203.0.113.5", "ada", now=NOW),
            "all": lambda: revoking.revoke_all(by="ada", now=NOW),
        }
        assert verbs[kind]() == 0
        session(key, "late", begun=1)
        session(key, "new", begun=-1)
        session(other, "other", begun=1, address="203.0.113.6")

        assert revoking.catch_up(NOW) == (2 if kind == "all" else 1)

        name = f"key:{key.pk}/late"
        assert ended() == (["0", "2"] if kind == "all" else ["0"])
        assert banned()[name] == NOW + BAN
        assert Revocation.objects.get(name=name).by == "ada"
        assert revoking.catch_up(NOW) == 0

    def test_a_session_that_is_refused_is_not_alive(self, key: ClientKey) -> None:
        row = session(key, "a", ended_at=NOW, ended="idle")
        revoking.revoke_session(row, by="ada", now=NOW)
        # Written by somebody who had read it before; its clock is ahead, too.
        session(key, "a", begun=-5)

        assert revoking.catch_up(NOW) == 1
        assert ended() == ["1"]

    def test_when_it_is_over_the_client_is_welcome_again(self, key: ClientKey) -> None:
        revoking.revoke_all(by="ada", now=NOW)
        revoking.revoke_session(session(key, "a", ended_at=NOW, ended="idle"), by="ada", now=NOW)
        session(key, "a", begun=-1000)

        assert revoking.catch_up(NOW + timedelta(seconds=1001)) == 0

    def test_the_sessions_of_a_revoked_key_end_with_it(self, key: ClientKey) -> None:
        other, _ = keys.create("other", by="ada")
        row = session(key)
        session(key, "b"), session(other, "c")
        assert revoking.catch_up(NOW) == 0

        keys.revoke(key, by="ada")

        assert revoking.catch_up(NOW) == 2
        assert ended() == ["0", "1"]
        row.refresh_from_db()
        key.refresh_from_db()
        assert row.ended_at == key.revoked_at
        assert not Revocation.objects.exists()

    def test_it_costs_two_questions_while_nothing_is_revoked(
        self, key: ClientKey, django_assert_num_queries: Any
    ) -> None:
        session(key)

        with django_assert_num_queries(2):
            revoking.catch_up(NOW)


def test_all_who_revoke_at_once_succeed(key: ClientKey) -> None:
    rows = [session(key, f"{number}") for number in range(12)]
    verbs = [
        lambda: revoking.revoke_all(by="ada"),
        lambda: revoking.revoke_sessions_of_key(key, by="bob"),
        lambda: [revoking.revoke_session(row, by="eve") for row in reversed(rows)],
        lambda: revoking.catch_up(),
    ]
    start, failed = threading.Barrier(len(verbs)), []

    def work(verb: Any) -> None:
        try:
            start.wait(10)
            verb()
        except Exception as error:
            failed.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(verb,)) for verb in verbs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert len(ended()) == 12
    assert len(banned()) == 14
