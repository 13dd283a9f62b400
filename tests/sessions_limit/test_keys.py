"""Relay keys: recognised at once, refused for good, and never a burden for the database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connections
from django.utils import timezone

from events.models import Event
from lib import bus, db
from lib import redis as clients
from lib.crypto import keyed_hash
from sessions_limit import keys
from sessions_limit.models import ClientKey

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
async def _knows_no_key() -> AsyncIterator[None]:
    keys.reset()
    await _listening()
    yield
    await bus.stop()
    await clients.close()
    keys.reset()
    db.reset()
    # The thread of the asynchronous ORM keeps its connection, and PostgreSQL its database, open.
    await sync_to_async(connections.close_all)()


async def _listening() -> None:
    """Let the bus have said that all may have changed: it does so once it listens."""
    heard: list[int] = []
    hear = partial(heard.append, 1)
    bus.on(keys.KEYS, hear)
    bus.listen()
    async with asyncio.timeout(5):
        while not heard:
            await asyncio.sleep(0.001)
    bus._handlers[keys.KEYS].remove(hear)


@sync_to_async
def created(name: str = "one", **fields: Any) -> tuple[ClientKey, str]:
    return keys.create(name=name, by="ada", **fields)


revoke = sync_to_async(keys.revoke)


class Asked:
    """How often the database was asked about one key, and for how long it must wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self.goes_on = threading.Event()
        self.goes_on.set()
        find = keys._find

        def counted(digest: str) -> keys.Key | None:
            self.times += 1
            assert self.goes_on.wait(5)
            return find(digest)

        monkeypatch.setattr(keys, "_find", counted)

    async def are(self, times: int) -> None:
        async with asyncio.timeout(5):
            while self.times < times:
                await asyncio.sleep(0.001)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


async def test_a_key_is_known_by_its_hash_alone() -> None:
    row, text = await created()

    key = await keys.authenticate(text)

    assert key is not None
    assert (key.id, key.name) == (row.pk, "one")
    assert text.startswith("rk_")
    assert len(text) == 46
    assert row.hash == keyed_hash(text, "client key")
    assert row.hint == text[-4:]
    async for event in Event.objects.all():
        assert text not in str(event.data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rk_",
        "rk_" + "x" * 43,
        "rk_" + "x" * 5000,
        "rk_é",
        "rk_\u0661",
        "rk_\0",
        "RK_x",
        "sk-ant-api03-x",
        "' OR 1=1 --",
    ],
)
async def test_anything_else_is_no_key(text: str) -> None:
    await created()

    assert await keys.authenticate(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "rk_" + "x" * 42,
        "rk_" + "x" * 44,
        "rk_" + "x" * 43 + "\n",
        "rk_" + "x" * 42 + "\0",
        "rk_" + "x" * 42 + "\u0661",
        "rk_" + "x" * 42 + "é",
        "rk_" + "x" * 42 + "=",
        "rk_" + "' OR 1=1 --".ljust(43),
        "RK_" + "x" * 43,
        " rk_" + "x" * 43,
        "rk_" + "x" * 2**20,
    ],
)
async def test_of_what_cannot_be_a_key_nobody_is_asked(text: str, asked: Asked) -> None:
    assert await keys.authenticate(text) is None

    assert asked.times == 0
    assert not keys._unknown


async def test_a_key_works_the_moment_it_was_made_even_when_nobody_was_told(asked: Asked) -> None:
    await keys.authenticate("rk_" + "x" * 43)
    asked.times = 0
    text = "rk_" + "y" * 43
    await ClientKey.objects.acreate(
        name="quiet", hash=keyed_hash(text, "client key"), hint="yyyy", created_by="ada"
    )

    key = await keys.authenticate(text)

    assert key is not None
    assert key.name == "quiet"
    assert asked.times == 1


async def test_an_unknown_key_is_looked_up_once(asked: Asked) -> None:
    for _ in range(5):
        assert await keys.authenticate("rk_" + "x" * 43) is None

    assert asked.times == 1


async def test_a_key_that_was_asked_for_too_early_works_once_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "rk_" + "z" * 43
    assert await keys.authenticate(text) is None
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: "z" * 43)

    await created()

    assert await keys.authenticate(text) is not None


async def test_only_so_many_unknown_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "UNKNOWN_KEPT", 3)

    for number in range(6):
        await keys.authenticate(f"rk_{number:043}")

    assert len(keys._unknown) == 3


async def test_guessing_asks_for_few_keys_at_a_time(asked: Asked) -> None:
    _, text = await created()
    await keys.authenticate(text)
    asked.goes_on.clear()

    guesses = [asyncio.create_task(keys.authenticate(f"rk_{n:043}")) for n in range(50)]
    await asked.are(keys.LOOKUPS_AT_ONCE)
    # Whom the snapshot knows waits for nobody.
    assert await keys.authenticate(text) is not None
    asked.goes_on.set()

    assert set(await asyncio.gather(*guesses)) == {None}
    assert asked.times == keys.LOOKUPS_AT_ONCE
    assert not keys._looking


async def test_guessers_who_hang_up_at_once_do_not_get_more(asked: Asked) -> None:
    _, text = await created()
    await keys.authenticate(text)
    asked.goes_on.clear()

    for number in range(20):
        guess = asyncio.create_task(keys.authenticate(f"rk_{number:043}"))
        await asyncio.sleep(0.005)
        guess.cancel()
        await asyncio.wait([guess])

    assert asked.times <= keys.LOOKUPS_AT_ONCE
    asked.goes_on.set()
    async with asyncio.timeout(5):
        while keys._looking:
            await asyncio.sleep(0.001)


async def test_a_key_ends_between_two_looks_at_the_database() -> None:
    row, text = await created(expires_at=timezone.now() + timedelta(seconds=0.4))
    assert await keys.authenticate(text) is not None

    await asyncio.sleep(0.45)

    assert await keys.authenticate(text) is None
    assert row.state == "expired"


async def test_a_revoked_key_is_refused_at_once_and_revoked_once() -> None:
    row, text = await created()
    assert await keys.authenticate(text) is not None

    assert await revoke(row, by="ada") is True
    assert await revoke(row, by="bob") is False

    assert await keys.authenticate(text) is None
    events = [event.by async for event in Event.objects.filter(kind="key.revoke")]
    assert events == ["ada"]


async def test_of_two_who_revoke_at_once_one_wins() -> None:
    row, _ = await created()

    wins = await asyncio.gather(*(db.in_thread(keys.revoke, row, by="ada") for _ in range(4)))

    assert sorted(wins) == [False, False, False, True]
    assert await Event.objects.filter(kind="key.revoke").acount() == 1


async def test_a_disabled_key_is_refused() -> None:
    row, text = await created()

    await ClientKey.objects.filter(pk=row.pk).aupdate(enabled=False)

    assert await keys.authenticate(text) is None


async def test_a_key_that_is_known_costs_no_query(asked: Asked) -> None:
    _, text = await created()
    await keys.authenticate(text)
    reading = keys.snapshot._reading

    for _ in range(20):
        await keys.authenticate(text)

    assert keys.snapshot._reading is reading
    assert asked.times == 0


async def test_known_keys_work_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = await created()
    await keys.authenticate(text)

    def away(*_: object) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(keys.snapshot, "_load", away)
    monkeypatch.setattr(keys, "_find", away)
    keys.snapshot.invalidate()

    assert await keys.authenticate(text) is not None
    with pytest.raises(OperationalError):
        await keys.authenticate("rk_" + "u" * 43)
    # Not known is not the same as refused: it is asked again.
    assert not keys._unknown
    assert not keys._looking
