"""When and from where a key was last used, learnt from records; and the records themselves."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from lib import redis as clients
from lib.streams import GROUP
from sessions_limit import keys, use
from sessions_limit.models import ClientKey, ClientSession
from usage import recorder
from usage.models import RequestRecord

pytestmark = pytest.mark.django_db(transaction=True)


def row(number: int, key: int | None, at: datetime, **fields: Any) -> dict[str, Any]:
    return {
        "request_id": f"rly_{number}",
        "key": key,
        "account": None,
        "session": "",
        "endpoint": "/v1/messages",
        "model": "claude-opus-5",
        "stream": True,
        "status": 200,
        "ended": "complete",
        "attempts": 1,
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_tokens": None,
        "started_at": at.timestamp(),
        "first_byte_at": None,
        "ended_at": at.timestamp(),
    } | fields


@pytest.fixture
def key() -> ClientKey:
    return keys.create("one", by="ada")[0]


def test_last_use_moves_forward_only(key: ClientKey) -> None:
    now = timezone.now()
    recorder.write([row(n, key.pk, now - timedelta(minutes=n)) for n in (1, 2, 3)])

    assert use.note_last_use(now) == 1
    key.refresh_from_db()
    assert key.last_used_at == pytest.approx(now - timedelta(minutes=1), abs=timedelta(seconds=1))
    assert use.note_last_use(now) == 0

    later = now + timedelta(hours=1)
    ClientKey.objects.filter(pk=key.pk).update(last_used_at=later)
    assert use.note_last_use(now) == 0
    key.refresh_from_db()
    assert key.last_used_at == later


def addresses(key: ClientKey) -> list[str]:
    key.refresh_from_db()
    return list(key.last_addresses)


def test_the_last_five_addresses_are_kept_newest_first(key: ClientKey) -> None:
    now = timezone.now()
    other = keys.create("other", by="ada")[0]

    def session(whose: ClientKey, address: str, minutes: int) -> None:
        at = now - timedelta(minutes=minutes)
        uid, name = f"{ClientSession.objects.count():016}", f"key:{whose.pk}"
        ClientSession.objects.create(
            uid=uid, key=whose, client=name, address=address, started_at=at, last_seen_at=at
        )

    ClientKey.objects.filter(pk=key.pk).update(last_addresses=["10.0.0.9", "10.0.0.2"])
    for address, minutes in (("10.0.0.1", 3), ("10.0.0.2", 2), ("10.0.0.1", 1), ("", 0)):
        session(key, address, minutes)
    session(key, "10.0.0.8", 61)

    assert use.note_addresses(now) == 1
    assert addresses(key) == ["10.0.0.1", "10.0.0.2", "10.0.0.9"]
    assert use.note_addresses(now) == 0

    for number in range(6):
        session(key, f"2001:db8::{number}", 0)
    session(other, "10.0.0.1", 0)
    assert use.note_addresses(now) == 2
    assert len(addresses(key)) == 5
    assert {address[:9] for address in addresses(key)} == {"2001:db8:"}
    assert addresses(other) == ["10.0.0.1"]


def test_a_record_outlives_its_key(key: ClientKey) -> None:
    now = timezone.now()

    recorder.write([row(1, key.pk, now), row(2, 999_999, now), row(3, None, now)])
    key.delete()

    assert list(RequestRecord.objects.values_list("key", flat=True)) == [None, None, None]
    assert use.note_last_use(now) == 0


def test_a_record_that_comes_twice_counts_once(key: ClientKey) -> None:
    now = timezone.now()
    rows = [row(1, key.pk, now), row(1, key.pk, now), row(2, key.pk, now)]

    recorder.write(rows)
    recorder.write(rows)

    assert RequestRecord.objects.count() == 2


POISON = [
    {"output_tokens": 2**70},
    {"status": None},
    {"key": "x"},
    {"key": [1]},
    {"started_at": 1e30},
    {"started_at": "yesterday"},
    {"model": None},
]


@pytest.mark.parametrize("fault", POISON, ids=[str(fault) for fault in POISON])
def test_one_poison_record_does_not_hold_up_the_others(fault: dict[str, Any]) -> None:
    now = timezone.now()
    rows = [row(1, None, now), row(2, None, now) | fault, row(3, None, now)]
    with clients.for_jobs() as client:
        client.flushdb()
        for data in rows:
            client.xadd(recorder.STREAM, {"d": json.dumps(data)})

        recorder.drain()

        ids = set(RequestRecord.objects.values_list("request_id", flat=True))
        assert ids == {"rly_1", "rly_3"}
        assert client.xlen(f"{recorder.STREAM}:dead") == 1
        assert client.xpending(recorder.STREAM, GROUP)["pending"] == 0
        client.flushdb()


def test_a_models_name_is_kept_whatever_the_client_wrote() -> None:
    recorder.write([row(1, None, timezone.now(), model="a\0b" + "x" * 200)])

    assert RequestRecord.objects.get().model == "ab" + "x" * 126
