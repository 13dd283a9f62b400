"""The record of sessions: what the web processes tell is counted once, whatever comes twice."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.utils import timezone

from accounts.models import Account
from lib import redis as clients
from lib.redis import for_jobs
from sessions_limit import keys, sightings
from sessions_limit.models import ClientKey, ClientSession

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def key() -> ClientKey:
    return keys.create("one", by="ada")[0]


@pytest.fixture
def account() -> Account:
    return Account.objects.create(name="ada", kind="api_key")


def sighting(key: ClientKey, uid: str = "00000000000000aa", **fields: Any) -> dict[str, Any]:
    """A sighting; `at` are the seconds before NOW at which it was made."""
    at = NOW.timestamp() - fields.pop("at", 60)
    return {
        "uid": uid,
        "key": key.pk,
        "client": f"key:{key.pk}",
        "session": "conversation",
        "address": "203.0.113.5",
        "user_agent": "claude-cli/2.1.328",
        "account": None,
        "process": "web:1",
        "since": NOW.timestamp() - 600,
        "seen": at,
        "requests": 1,
    } | fields


def write(*rows: dict[str, Any]) -> ClientSession:
    sightings.write(rows, NOW)
    return ClientSession.objects.get()


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_a_session_is_written_as_it_was_told(key: ClientKey, account: Account) -> None:
    row = write(sighting(key, account=account.pk, requests=7))

    assert (row.key, row.name, row.account) == (key, f"key:{key.pk}/conversation", account)
    assert (row.address, row.user_agent) == ("203.0.113.5", "claude-cli/2.1.328")
    assert (row.started_at, row.last_seen_at, row.ended_at) == (ago(600), ago(60), None)
    assert (row.requests, row.counts) == (7, {"web:1": 7})


def test_each_order_and_every_repetition_tells_the_same(key: ClientKey) -> None:
    told = [
        sighting(key, at=50, requests=1, address="203.0.113.1"),
        sighting(key, at=30, requests=5, address="203.0.113.2"),
        sighting(key, at=40, requests=3, process="web:2", since=NOW.timestamp() - 700),
    ]

    for order in itertools.permutations(told):
        ClientSession.objects.all().delete()
        for row in (*order, random.choice(order)):
            write(row)
        row = write(*order)

        assert (row.requests, row.counts) == (8, {"web:1": 5, "web:2": 3})
        assert (row.started_at, row.last_seen_at) == (ago(700), ago(30))
        assert row.address == "203.0.113.2"


def test_the_account_is_the_last_that_was_told(key: ClientKey, account: Account) -> None:
    other = Account.objects.create(name="bob", kind="api_key")

    assert write(sighting(key, at=60)).account is None
    assert write(sighting(key, at=50, account=account.pk)).account == account
    assert write(sighting(key, at=40)).account == account
    assert write(sighting(key, at=30, account=other.pk)).account == other
    assert write(sighting(key, at=35, account=account.pk)).account == other
    assert write(sighting(key, at=20, account=999_999)).account == other


def test_what_has_no_key_any_more_is_left_out(key: ClientKey) -> None:
    row = write(sighting(key) | {"key": 999_999}, sighting(key, uid="00000000000000bb"))

    assert row.uid == "00000000000000bb"


HOSTILE = "a\0b\ud800c\u202ed\r\ne" + "x" * 300


def test_what_callers_choose_becomes_plain_text(key: ClientKey) -> None:
    row = write(sighting(key, user_agent=HOSTILE, address="\u202e" + "1" * 99))

    assert row.user_agent == "a b c d e" + "x" * 191
    assert row.address == ""


@pytest.mark.parametrize(("ended", "lives"), [("idle", True), ("revoked", False)])
def test_a_session_that_is_seen_again_lives_unless_it_was_revoked(
    key: ClientKey, ended: str, lives: bool
) -> None:
    write(sighting(key, at=60))
    ClientSession.objects.update(ended=ended, ended_at=ago(30))

    assert write(sighting(key, at=60)).ended == ended
    row = write(sighting(key, at=10, requests=9))

    assert (row.ended_at is None) is lives
    assert row.ended == ("" if lives else ended)
    assert row.requests == 9


def test_a_clock_that_is_ahead_does_not_keep_a_session_alive(key: ClientKey) -> None:
    row = write(sighting(key, at=-3600, since=NOW.timestamp() + 3000))

    assert (row.started_at, row.last_seen_at) == (NOW, NOW)


def test_two_who_write_at_once_lose_no_count(key: ClientKey) -> None:
    uids = [f"{number:016x}" for number in range(20)]
    start, failed = threading.Barrier(4), []

    def work(process: str) -> None:
        try:
            start.wait(10)
            for requests in range(1, 6):
                rows = [sighting(key, uid, process=process, requests=requests) for uid in uids]
                random.shuffle(rows)
                sightings.write(rows, NOW)
        except Exception as error:
            failed.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(f"web:{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert list(ClientSession.objects.values_list("requests", flat=True)) == [20] * 20


@pytest.fixture
def _empty_valkey() -> Iterator[None]:
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()
        yield
        client.flushdb()


POISON = [
    {"requests": 2**70},
    {"seen": 1e30},
    {"seen": "now"},
    {"since": None},
    {"uid": None},
    {"key": "x"},
    {"address": None},
    {"account": [1]},
]


@pytest.mark.usefixtures("_empty_valkey")
def test_a_poison_sighting_does_not_hold_up_the_others(key: ClientKey) -> None:
    seen = timezone.now().timestamp()
    good = [sighting(key, f"{number:016x}", seen=seen) for number in range(2)]
    bad = [sighting(key, f"{n:016x}") | fault for n, fault in enumerate(POISON, start=9)]
    with contextlib.closing(for_jobs()) as client:
        for row in (good[0], *bad, good[1]):
            client.xadd(sightings.STREAM, {"d": json.dumps(row)})

        sightings.drain()

        dead = client.xlen(f"{sightings.STREAM}:dead")
    uids = set(ClientSession.objects.values_list("uid", flat=True))
    assert uids >= {row["uid"] for row in good}
    assert dead == len(bad)


@pytest.mark.usefixtures("_empty_valkey")
async def test_a_sighting_comes_from_the_web_process_to_the_record() -> None:
    row, _ = await sync_to_async(keys.create)("one", by="ada")
    sightings.append(sighting(row, user_agent=HOSTILE))
    await sightings.appender.flushed()

    assert await sync_to_async(sightings.drain)() == 1
    assert (await sync_to_async(ClientSession.objects.get)()).user_agent.startswith("a b c")
    await clients.close()
    await sync_to_async(connections.close_all)()
