"""How many requests clients, keys, addresses and sessions have under way at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lib import redis as clients
from sessions_limit import limiter, presence, sessions, visits
from sessions_limit.errors import Busy
from sessions_limit.identity import client_of
from sessions_limit.keys import Key
from sessions_limit.visits import Visit

KEY = Key(1, "key", None)


@pytest.fixture(autouse=True)
async def _empty(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    # A busy test machine is not a Redis that is away.
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 5.0)
    sessions.reset()
    visits.reset()
    await clients.for_requests().flushdb()
    yield
    sessions.reset()
    visits.reset()
    presence.reset()
    await clients.for_requests().flushdb()
    await clients.close()


def configure(settings: Any, **changes: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update=changes)


def enter(key: Key = KEY, *, agent: str = "", address: str = "203.0.113.5") -> Visit:
    visit = Visit(key, client_of(visits.settings.CONFIG.session_client, key.id, address, agent))
    visit.begin()
    return visit


def fill(count: int, key: Key = KEY) -> list[Visit]:
    """Begin so many requests, and see that there is no room for a further one."""
    found = [enter(key) for _ in range(count)]
    with pytest.raises(Busy) as refused:
        enter(key)
    assert refused.value.seconds == 1
    return found


def test_a_client_has_64_requests_under_way() -> None:
    running = fill(64)
    enter(Key(2, "other", None)).end()

    running.pop().end()
    enter().end()
    for visit in running:
        visit.end()

    assert not visits.here


@pytest.mark.parametrize("own", [0, 1, 5, 100])
def test_a_key_has_as_many_as_it_says(own: int) -> None:
    fill(own, Key(1, "key", None, max_in_flight=own))


@pytest.mark.parametrize(("most", "count"), [(0, 0), (2, 2)])
def test_every_client_has_as_many_as_is_set(settings: Any, most: int, count: int) -> None:
    configure(settings, client_max_in_flight=most)

    fill(count)


def test_there_may_be_any_number(settings: Any) -> None:
    configure(settings, client_max_in_flight=-1)

    assert len([enter() for _ in range(200)]) == 200


@pytest.mark.parametrize(("own", "expected"), [(2, 2), (9, 4)])
def test_where_addresses_are_clients_both_caps_hold(settings: Any, own: int, expected: int) -> None:
    configure(settings, session_client="ip", client_max_in_flight=4)

    fill(expected, Key(1, "key", None, max_in_flight=own))


def test_with_user_agents_an_address_has_four_times_as_many(settings: Any) -> None:
    configure(settings, session_client="ip+ua", client_max_in_flight=2)

    running = [enter(agent=f"agent/{number}") for number in range(8)]

    with pytest.raises(Busy):
        enter(agent="another")
    enter(agent="another", address="203.0.113.6")
    running.pop().end()
    enter(agent="another")


async def test_a_session_has_32_whether_it_counts_or_not() -> None:
    running = [enter() for _ in range(32)]
    for number, visit in enumerate(running):
        await visit.join("one", opens=number % 2 == 0)
    late = enter()

    with pytest.raises(Busy):
        await late.join("one")
    await late.join("two")
    late.end()
    running.pop().end()
    last = enter()
    await last.join("one")
    for visit in (*running, last):
        visit.end()

    assert not visits.here
    assert {lease.in_flight for lease in sessions.leases.values()} == {0}


async def test_what_only_counts_tokens_opens_no_session() -> None:
    visit = enter()
    await visit.join("one", opens=False)

    assert visits.here["key:1"] == 1
    assert await asyncio.to_thread(limiter.living) == []
    visit.settled(is_stream=False)
    await visit.withdraw()
    assert not sessions.leases


async def test_a_place_is_left_once_however_often_it_is_ended() -> None:
    one, other = enter(), enter()
    await one.join("one")
    await other.join("one")
    one.settled(is_stream=True)

    await one.withdraw()
    one.end()
    one.end()

    assert visits.here["key:1"] == 1
    (lease,) = sessions.leases.values()
    assert (lease.in_flight, lease.streams) == (1, 0)


async def test_what_another_process_told_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    running = [enter() for _ in range(40)]
    await running[0].join("one")
    await presence.exchange()
    visits.reset()
    sessions.reset()
    monkeypatch.setattr(sessions, "PROCESS", "another")

    await presence.exchange()

    fill(24)
    assert visits.elsewhere["key:1/one"] == 1
    assert visits.of_key(1) == 64
