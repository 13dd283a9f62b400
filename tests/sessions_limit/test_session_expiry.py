"""Sessions end in the record when their slot was free, and are forgotten long after."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from lib.redis import for_jobs
from sessions_limit import expiry, keys, sightings
from sessions_limit.models import ClientKey, ClientSession, Revocation
from tests.lib.conftest import OwnValkey, own_valkey

__all__ = ["own_valkey"]

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
HOUR = 3600
pytestmark = pytest.mark.django_db


@pytest.fixture
def key() -> ClientKey:
    return keys.create("one", by="ada")[0]


@pytest.fixture
def client() -> Iterator[redis.Redis]:
    """An empty Valkey in which sightings were written for a while."""
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()
        sightings.drain()
        _go_back(client, 60)
        yield client
        client.flushdb()


def _go_back(client: redis.Redis, seconds: float) -> None:
    """Let sightings be written for so long by now."""
    since = float(str(client.get(sightings.WRITTEN_SINCE)))
    client.set(sightings.WRITTEN_SINCE, since - seconds, keepttl=True)


def session(key: ClientKey, *, seen: float, begun: float = HOUR, **fields: Any) -> ClientSession:
    return ClientSession.objects.create(
        uid=f"{ClientSession.objects.count():016x}",
        key=key,
        client=f"key:{key.pk}",
        session="conversation",
        started_at=ago(begun),
        last_seen_at=ago(seen),
        **fields,
    )


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("begun", "seen", "ended_at", "ended"),
    [
        (HOUR, 0, None, ""),
        (HOUR, 300, None, ""),
        (HOUR, 329, None, ""),
        (HOUR, 331, 31, "idle"),
        (HOUR, 900, 600, "idle"),
        (12 * HOUR + 29, 0, None, ""),
        (12 * HOUR + 31, 0, 31, "too old"),
        (12 * HOUR + 100, 350, 100, "too old"),
        (12 * HOUR + 50, 400, 100, "idle"),
    ],
)
def test_a_session_ends_when_its_slot_was_free(
    key: ClientKey, begun: float, seen: float, ended_at: float | None, ended: str
) -> None:
    row = session(key, begun=begun, seen=seen)

    assert expiry.expire(NOW) == (ended_at is not None)

    row.refresh_from_db()
    assert row.ended_at == (None if ended_at is None else ago(ended_at))
    assert row.ended == ended


@pytest.mark.usefixtures("client")
def test_what_has_ended_stays_as_it_was(key: ClientKey) -> None:
    row = session(key, seen=900, ended_at=ago(880), ended="revoked")

    assert expiry.expire(NOW) == 0

    row.refresh_from_db()
    assert (row.ended, row.ended_at) == ("revoked", ago(880))


@pytest.mark.usefixtures("client")
def test_who_is_seen_while_the_dead_are_counted_lives_on(
    key: ClientKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = session(key, seen=900)
    end = expiry._end

    def see_first(*given: Any) -> int:
        ClientSession.objects.update(last_seen_at=NOW)
        return end(*given)

    monkeypatch.setattr(expiry, "_end", see_first)

    assert expiry.expire(NOW) == 0
    row.refresh_from_db()
    assert row.ended_at is None


def test_nobody_is_dead_before_sightings_were_written_for_a_while(
    key: ClientKey, client: redis.Redis
) -> None:
    session(key, seen=900)

    client.delete(sightings.WRITTEN_SINCE)
    assert expiry.expire(NOW) == 0
    sightings.drain()
    _go_back(client, 14)
    sightings.drain()
    assert expiry.expire(NOW) == 0
    _go_back(client, 2)
    assert expiry.expire(NOW) == 1


def test_whoever_pauses_begins_anew(client: redis.Redis) -> None:
    assert 0 < client.ttl(sightings.WRITTEN_SINCE) <= sightings.BREAK_SECONDS


@pytest.mark.parametrize(("age", "ended"), [(5, 1), (20, 0)])
def test_nobody_is_dead_while_a_backlog_is_written(
    key: ClientKey, client: redis.Redis, age: float, ended: int
) -> None:
    session(key, seen=900)
    seconds, _ = client.time()
    client.xadd(sightings.STREAM, {"d": "{}"}, id=f"{int((seconds - age) * 1000)}-0")

    assert expiry.expire(NOW) == ended


def test_nobody_is_dead_while_redis_is_away(key: ClientKey, own_valkey: OwnValkey) -> None:
    session(key, seen=900)
    own_valkey.kill()

    assert expiry.expire(NOW) == 0


@pytest.mark.usefixtures("client")
def test_many_are_ended_in_batches(key: ClientKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "BATCH", 3)
    for _ in range(8):
        session(key, seen=900)

    assert expiry.expire(NOW) == 8


def test_the_record_is_kept_for_record_days(key: ClientKey, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"record_days": 2})
    kept = [
        session(key, seen=9 * 86400),
        session(key, seen=9 * 86400, ended_at=ago(86400), ended="idle"),
    ]
    session(key, seen=9 * 86400, ended_at=ago(3 * 86400), ended="idle")
    for name, days in (("a", 1), ("b", 3)):
        Revocation.objects.create(name=name, until=ago(days * 86400), by="ada", target="session")

    assert expiry.prune(NOW) == 2
    assert set(ClientSession.objects.all()) == set(kept)
    assert Revocation.objects.get().name == "a"
