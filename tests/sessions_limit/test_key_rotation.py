"""A key gets a new secret while the old one still opens the relay, and is changed with a trace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections
from django.utils import timezone

from events.models import Event
from lib import bus, db
from lib import redis as clients
from sessions_limit import issuing, keys, terms
from sessions_limit.issuing import KeyRevoked
from sessions_limit.keytext import hash_of
from sessions_limit.models import ClientKey

pytestmark = pytest.mark.django_db(transaction=True)
HOUR = timedelta(hours=1)
NONE = timedelta(0)


@pytest.fixture(autouse=True)
def _knows_no_key() -> Iterator[None]:
    keys.reset()
    yield
    keys.reset()
    db.reset()


async def _opened(*texts: str) -> list[bool]:
    try:
        return [await keys.authenticate(text) is not None for text in texts]
    finally:
        await bus.stop()
        await clients.close()


def opens(*texts: str) -> list[bool]:
    """Tell of each text whether it opens the relay, to a process that has read the keys once."""
    return async_to_sync(_opened)(*texts)


def told(kind: str) -> list[dict[str, Any]]:
    return [event.data for event in Event.objects.filter(kind=kind).order_by("id")]


@pytest.fixture
def key() -> ClientKey:
    return keys.create("ci", by="ada")[0]


def test_both_secrets_open_the_relay_for_a_day() -> None:
    row, old = keys.create("ci", by="ada")
    now = timezone.now()

    new = issuing.rotate(row, by="bob", now=now)

    assert opens(new, old) == [True, True]
    row.refresh_from_db()
    assert (row.hash, row.previous_hash) == (hash_of(new), hash_of(old))
    assert row.previous_until == now + timedelta(hours=24)
    assert row.hint == new[-4:]
    (data,) = told("key.rotate")
    assert data == {"name": "ci", "previous_until": (now + timedelta(hours=24)).isoformat()}
    written = json.dumps([event.data for event in Event.objects.all()])
    assert not [secret for secret in (old, new, row.hash, row.previous_hash) if secret in written]


def test_both_secrets_are_the_same_key() -> None:
    row, old = keys.create("ci", by="ada", expires_at=timezone.now() + 5 * HOUR)
    new = issuing.rotate(row, by="ada", overlap=HOUR)

    async def recognised() -> list[keys.Key | None]:
        return [await keys.authenticate(text) for text in (new, old)]

    now, before = async_to_sync(recognised)()

    assert now is not None
    assert before is not None
    assert now.id == before.id == row.pk
    assert now.expires_at == row.expires_at
    row.refresh_from_db()
    assert before.expires_at == row.previous_until


def test_a_key_does_not_outlive_its_end_by_its_old_secret() -> None:
    row, old = keys.create("ci", by="ada", expires_at=timezone.now() - HOUR)

    new = issuing.rotate(row, by="ada", overlap=timedelta(hours=48))

    assert opens(new, old) == [False, False]


def test_without_an_overlap_the_old_secret_ends_at_once() -> None:
    row, old = keys.create("ci", by="ada")
    opens(old)

    new = issuing.rotate(row, by="ada", overlap=NONE)

    assert opens(new, old) == [True, False]
    assert told("key.rotate") == [{"name": "ci", "previous_until": None}]


def test_a_second_rotation_ends_the_secret_before_at_once() -> None:
    row, first = keys.create("ci", by="ada")

    second = issuing.rotate(row, by="ada")
    third = issuing.rotate(row, by="ada")

    assert opens(first, second, third) == [False, True, True]


async def test_the_old_secret_ends_between_two_looks_at_the_database() -> None:
    row, old = await sync_to_async(keys.create)("ci", by="ada")
    await sync_to_async(issuing.rotate)(row, by="ada", overlap=timedelta(seconds=0.4))
    assert await keys.authenticate(old) is not None

    await asyncio.sleep(0.45)

    assert await keys.authenticate(old) is None
    await bus.stop()
    await clients.close()
    await sync_to_async(connections.close_all)()


def test_the_old_secret_is_found_by_a_process_that_was_not_told() -> None:
    row, old = keys.create("ci", by="ada")
    new = issuing.rotate(row, by="ada", overlap=HOUR)

    found = [keys._find(hash_of(text)) for text in (new, old, "rk_" + "x" * 43)]

    assert [known and known.id for known in found] == [row.pk, row.pk, None]
    ClientKey.objects.update(previous_until=None)
    assert keys._find(hash_of(old)) is None


@pytest.mark.parametrize("end", ["revoked", "disabled"])
def test_neither_secret_of_an_ended_key_opens_anything(end: str) -> None:
    row, old = keys.create("ci", by="ada")
    new = issuing.rotate(row, by="ada")

    (keys.revoke if end == "revoked" else issuing.disable)(row, by="ada")

    assert opens(new, old) == [False, False]


def test_a_revoked_key_is_neither_rotated_nor_changed(key: ClientKey) -> None:
    keys.revoke(key, by="ada")
    digest = ClientKey.objects.get(pk=key.pk).hash

    with pytest.raises(KeyRevoked, match="ci is revoked"):
        issuing.rotate(key, by="ada")
    with pytest.raises(KeyRevoked):
        issuing.update(key, by="ada", owner="Ada")
    with pytest.raises(KeyRevoked):
        issuing.enable(key, by="ada")

    assert ClientKey.objects.get(pk=key.pk).hash == digest
    assert not Event.objects.exclude(kind__in=("key.create", "key.revoke")).exists()


def test_a_change_is_told_with_what_was_before(key: ClientKey) -> None:
    ends = timezone.now() + HOUR
    given = {"usd_per_day": "1.5", "labels": "a", "expires_at": ends, "time_zone": "UTC"}

    changed = issuing.update(key, by="bob", **terms.checked(**given))
    issuing.update(key, by="bob", **terms.checked(**given))

    assert (changed.cost_per_day, changed.labels, changed.expires_at) == (1_500_000, ["a"], ends)
    assert told("key.update") == [
        {
            "name": "ci",
            "old": {"usd_per_day": None, "labels": [], "expires_at": None},
            "new": {"usd_per_day": 1.5, "labels": ["a"], "expires_at": ends.isoformat()},
        }
    ]


def test_a_change_holds_at_once_for_who_knew_the_key() -> None:
    row, text = keys.create("ci", by="ada")
    opens(text)

    issuing.update(row, by="ada", **terms.checked(max_in_flight=2, networks="10.0.0.0/8"))

    async def recognised() -> keys.Key | None:
        return await keys.authenticate(text)

    known = async_to_sync(recognised)()
    assert known is not None
    assert known.max_in_flight == 2
    assert [str(network) for network in known.networks] == ["10.0.0.0/8"]


def test_a_change_touches_no_other_column(key: ClientKey) -> None:
    ClientKey.objects.update(owner="Ada")

    assert issuing.update(key, by="ada", name="new").owner == "Ada"


def test_a_key_is_switched_off_and_on_again() -> None:
    row, text = keys.create("ci", by="ada")
    opens(text)

    assert issuing.disable(row, by="ada") is True
    assert issuing.disable(row, by="ada") is False
    off = opens(text)
    assert issuing.enable(row, by="ada") is True
    assert issuing.enable(row, by="ada") is False

    assert (off, opens(text)) == ([False], [True])
    kinds = Event.objects.exclude(kind="key.create").order_by("id").values_list("kind", flat=True)
    assert list(kinds) == ["key.disable", "key.enable"]


def test_switching_and_changing_at_once_leave_a_row_each(key: ClientKey) -> None:
    issuing.update(key, by="ada", enabled=False, owner="Ada")

    assert told("key.disable") == [{"name": "ci"}]
    assert told("key.update") == [{"name": "ci", "old": {"owner": ""}, "new": {"owner": "Ada"}}]


def test_a_key_is_made_with_its_terms() -> None:
    columns = terms.checked(owner="Ada", usd_per_month=0, model_patterns="claude-haiku-*")

    row, _ = keys.create("ci", by="ada", labels=["b", "a"], **columns)

    row.refresh_from_db()
    assert (row.owner, row.cost_per_month, row.labels) == ("Ada", 0, ["a", "b"])
    assert told("key.create") == [
        {
            "name": "ci",
            "labels": ["a", "b"],
            "owner": "Ada",
            "usd_per_month": 0,
            "model_patterns": ["claude-haiku-*"],
        }
    ]


async def test_of_rotations_at_once_the_last_two_secrets_open_the_relay() -> None:
    row, old = await sync_to_async(keys.create)("ci", by="ada")

    made = await asyncio.gather(*(db.in_thread(issuing.rotate, row, by="ada") for _ in range(4)))

    known = set(await sync_to_async(keys.load)())
    assert len(known & {hash_of(text) for text in made}) == 2
    assert hash_of(old) not in known
    assert await Event.objects.filter(kind="key.rotate").acount() == 4
    await sync_to_async(connections.close_all)()
