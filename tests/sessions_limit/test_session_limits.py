"""How many sessions a client has, how long they live, and what they cost in calls to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lib import redis as clients
from sessions_limit import alone, limiter, presence, sessions, sightings, sticky, visits
from sessions_limit.errors import Full, Refused
from sessions_limit.identity import Client, client_of
from sessions_limit.keys import Key
from sessions_limit.limiter import Claim, Scope
from sessions_limit.scopes import scopes_of
from sessions_limit.visits import Visit

GROUP = (1, 2, 3)
ADDRESS = "203.0.113.5"


@pytest.fixture(autouse=True)
async def _empty(settings: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    # A busy test machine is not a Redis that is away.
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 5.0)
    configure(settings, session_limit=True)
    forget()
    await clients.for_requests().flushdb()
    await clients.for_requests().script_load(limiter.SCRIPT)
    yield
    forget()
    await sightings.appender.flushed()
    await clients.for_requests().flushdb()
    await clients.close()


def configure(settings: Any, **changes: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update=changes)


def forget() -> None:
    """Be another process."""
    sessions.reset()
    visits.reset()
    sticky.reset()
    presence.reset()


def client(key: int = 1, agent: str = "", address: str = ADDRESS) -> Client:
    mode = sessions.settings.CONFIG.session_client
    return client_of(mode, key, address, agent)


async def enter(
    session: str | None, key: Key | None = None, *, agent: str = "", address: str = ADDRESS
) -> Visit:
    """Begin a request of a session that can be served, as the door does; raise Refused."""
    key = key or Key(1, "key", None)
    visit = Visit(key, client(key.id, agent, address))

    async def claim() -> Claim:
        return sticky.claim(key.id, session or "", GROUP, GROUP)

    try:
        visit.begin()
        await visit.join(session, claim=claim if session else None)
    except Refused:
        visit.end()
        raise
    visit.settled(is_stream=False)
    return visit


async def ask(session: str | None, key: Key | None = None, **who: str) -> bool:
    """Make a whole request, and return whether it was admitted."""
    try:
        (await enter(session, key, **who)).end()
    except Full:
        return False
    return True


async def admitted(count: int, key: Key | None = None, **who: str) -> int:
    """Return how many of as many new sessions are admitted."""
    return sum([await ask(f"s{number}", key, **who) for number in range(count)])


@contextlib.contextmanager
def calls(*, of: str = "") -> Iterator[list[int]]:
    """Yield what becomes the number of commands that Redis got within."""

    def count() -> int:
        with contextlib.closing(clients.for_jobs()) as watcher:
            told: Any = watcher.info("commandstats")
        own = ("cmdstat_info", "cmdstat_client", "cmdstat_select", "cmdstat_hello")
        return sum(
            stats["calls"]
            for name, stats in told.items()
            if (name == f"cmdstat_{of}" if of else not name.startswith(own))
        )

    before, found = count(), [0]
    yield found
    found[0] = count() - before


async def test_a_session_seen_just_now_costs_no_call() -> None:
    await ask("one")
    await sightings.appender.flushed()

    with calls() as found:
        for _ in range(20):
            await ask("one")
        await asyncio.gather(*(ask("one") for _ in range(20)))

    assert found == [0]


async def test_a_new_one_costs_one_call_its_account_included() -> None:
    with calls(of="evalsha") as scripts:
        visit = await enter("one")
        await sightings.appender.flushed()
    with calls() as further:
        assert await sticky.bind(1, "one", GROUP, GROUP) == visit.claimed

    assert (scripts, further) == ([1], [0])


async def test_after_five_seconds_it_costs_one_call_again(monkeypatch: pytest.MonkeyPatch) -> None:
    await ask("one")
    monkeypatch.setattr(sessions, "SEEN_SECONDS", 0.0)

    with calls(of="evalsha") as scripts:
        await ask("one")

    assert scripts == [1]


async def test_parallel_first_requests_of_a_session_cost_one_call_and_are_one() -> None:
    with calls(of="evalsha") as scripts:
        visits = await asyncio.gather(*(enter("one") for _ in range(25)))

    assert scripts == [1]
    assert {visit.claimed for visit in visits} == {1}
    assert await clients.for_requests().zcard("sessions:client:key:1") == 1


KEY, AGENTS = "key", "ip+ua"
CURL = f"client:ip:{ADDRESS}|{hashlib.sha256(b'curl/8').hexdigest()[:8]}"


@pytest.mark.parametrize(
    ("mode", "most", "total", "own", "expected"),
    [
        (KEY, 3, 0, None, {"all": -1, "client:key:1": 3}),
        (KEY, 3, 9, None, {"all": 9, "client:key:1": 3}),
        (KEY, 3, 0, 5, {"all": -1, "client:key:1": 5}),
        (KEY, 3, 0, 0, {"all": -1, "client:key:1": 0}),
        (KEY, 3, 0, -1, {"all": -1, "client:key:1": -1}),
        (KEY, -1, 0, None, {"all": -1, "client:key:1": -1}),
        (KEY, 0, 0, None, {"all": -1, "client:key:1": 0}),
        ("ip", 3, 0, None, {"all": -1, f"client:ip:{ADDRESS}": 3, "key:1": -1}),
        ("ip", 3, 0, 2, {"all": -1, f"client:ip:{ADDRESS}": 3, "key:1": 2}),
        (AGENTS, 3, 0, None, {"all": -1, CURL: 3, "key:1": -1, f"block:{ADDRESS}": 12}),
        (AGENTS, -1, 0, 0, {"all": -1, CURL: -1, "key:1": 0, f"block:{ADDRESS}": -1}),
        (AGENTS, 0, 0, None, {"all": -1, CURL: 0, "key:1": -1, f"block:{ADDRESS}": 0}),
    ],
)
def test_what_sessions_count_in(
    settings: Any, mode: str, most: int, total: int, own: int | None, expected: dict[str, int]
) -> None:
    changes = {"session_client": mode, "session_max_concurrent": most, "session_max_total": total}
    configure(settings, **changes)

    found = {scope.name: scope.most for scope in scopes_of(client(agent="curl/8"), 1, own)}

    assert found == {f"sessions:{name}": most for name, most in expected.items()}


async def test_there_are_three_of_a_client_and_others_have_their_own() -> None:
    assert await admitted(5) == 3
    assert await admitted(5, Key(2, "other", None)) == 3


@pytest.mark.parametrize(("own", "expected"), [(0, 0), (1, 1), (5, 5), (-1, 20), (None, 3)])
async def test_a_key_may_have_as_many_as_it_says(own: int | None, expected: int) -> None:
    key = Key(1, "key", None, max_sessions=own)

    assert await admitted(20, key) == expected


@pytest.mark.parametrize(("most", "expected"), [(0, 0), (-1, 20)])
async def test_none_or_any_number_of_every_client(settings: Any, most: int, expected: int) -> None:
    configure(settings, session_max_concurrent=most)

    assert await admitted(20) == expected


async def test_the_whole_relay_has_so_many(settings: Any) -> None:
    configure(settings, session_max_total=4)

    found = [await admitted(3, Key(number, "key", None)) for number in (1, 2, 3)]

    assert found == [3, 1, 0]


async def test_without_the_limit_all_are_admitted_and_still_counted(settings: Any) -> None:
    configure(settings, session_limit=False, session_max_total=1)

    assert await admitted(10, Key(1, "key", None, max_sessions=0)) == 10
    assert len(await asyncio.to_thread(limiter.living)) == 10


async def test_whoever_names_no_session_has_one() -> None:
    assert [await ask(None) for _ in range(5)] == [True] * 5
    assert await asyncio.to_thread(limiter.living) == ["key:1/default"]


async def test_by_address_a_thousand_user_agents_and_keys_are_one_client(settings: Any) -> None:
    configure(settings, session_client="ip", client_max_in_flight=-1)

    found = await asyncio.gather(
        *(ask(f"s{n}", Key(n, "key", None), agent=f"agent/{n}") for n in range(1000))
    )

    assert sum(found) == 3


async def test_with_user_agents_an_address_has_four_times_as_many(settings: Any) -> None:
    configure(settings, session_client="ip+ua", client_max_in_flight=-1)

    found = await asyncio.gather(*(ask(f"s{n}", agent=f"agent/{n}") for n in range(1000)))

    assert sum(found) == 12
    assert await admitted(5, agent="one/1", address="203.0.113.6") == 3


async def test_addresses_of_one_network_of_ipv6_are_one_client(settings: Any) -> None:
    for mode, expected in (("ip", 3), ("ip+ua", 12)):
        configure(settings, session_client=mode)
        found = [
            await ask(f"s{n}", agent=f"agent/{n}", address=f"2001:db8:0:1:{n:x}::{n:x}")
            for n in range(1, 30)
        ]

        assert sum(found) == expected
        assert await ask("one", address="2001:db8:0:2::1")


async def test_a_slot_is_free_when_its_session_was_idle(settings: Any) -> None:
    configure(settings, session_idle_seconds=0.5, session_max_concurrent=1)
    await ask("one")
    with pytest.raises(Full) as refused:
        await enter("two")

    assert 0 < refused.value.seconds <= 0.5
    await asyncio.sleep(refused.value.seconds)
    assert await ask("two")


async def test_no_session_lives_longer_than_it_may(settings: Any) -> None:
    configure(settings, session_max_seconds=0.8, session_max_concurrent=1)
    visit = await enter("one")
    assert visit.lease is not None
    uid = visit.lease.uid

    await asyncio.sleep(0.4)
    await presence.beat()
    assert not await ask("two")
    await asyncio.sleep(0.45)
    await presence.beat()

    assert await ask("two")
    visit.end()
    assert not await ask("one")
    await limiter.end("key:1/two")
    assert await ask("one")
    assert sessions.leases["key:1/one"].uid != uid


async def refused(session: str) -> Visit:
    """Begin a request that turns out to be a bad one."""
    visit = Visit(Key(1, "key", None), client())

    async def claim() -> Claim:
        return sticky.claim(1, session, GROUP, GROUP)

    visit.begin()
    await visit.join(session, claim=claim)
    return visit


async def living() -> list[str]:
    return sorted(await asyncio.to_thread(limiter.living))


async def test_a_session_whose_first_request_is_refused_has_ended() -> None:
    visit = await refused("one")
    assert await living() == ["key:1/one"]

    await visit.withdraw()

    assert await living() == []
    assert not visits.here
    # Else whoever sends many bad requests fills the memory of Redis for an hour.
    assert not await clients.for_requests().exists(sticky.binding(1, "one"))
    assert sticky.seen(1, "one") is None


async def test_a_bad_first_request_takes_no_account_from_a_session() -> None:
    await ask("one")
    account = sticky.seen(1, "one")
    await limiter.end("key:1/one")
    forget()

    await (await refused("one")).withdraw()
    bad = await refused("two")
    leaving = asyncio.create_task(bad.withdraw())
    await asyncio.sleep(0)
    await ask("two")
    await leaving

    assert await living() == ["key:1/two"]
    for session, expected in (("one", account), ("two", bad.claimed)):
        bound = await clients.for_requests().get(sticky.binding(1, session))
        assert bound == str(expected)
        assert sticky.seen(1, session) == expected


async def test_of_several_bad_first_requests_the_last_one_ends_it() -> None:
    first, second = await refused("one"), await refused("one")

    await first.withdraw()
    assert await living() == ["key:1/one"]
    await second.withdraw()

    assert await living() == []


async def test_it_goes_on_when_another_request_is_served() -> None:
    bad = await refused("one")
    good = await enter("one")
    good.end()

    await bad.withdraw()

    assert await living() == ["key:1/one"]


async def test_a_bad_request_ends_no_session_of_another_process() -> None:
    await ask("one")
    forget()

    await (await refused("one")).withdraw()

    assert await living() == ["key:1/one"]


async def test_it_goes_on_when_another_process_has_found_it_open() -> None:
    bad = await refused("one")
    forget()
    await ask("one")

    await bad.withdraw()

    assert await living() == ["key:1/one"]


async def test_a_heartbeat_on_its_way_brings_no_session_back_that_was_left() -> None:
    bad = await refused("one")
    beating = asyncio.create_task(presence.beat())
    # Until Redis is asked.
    for _ in range(4):
        await asyncio.sleep(0)

    await asyncio.gather(bad.withdraw(), beating)

    assert await living() == []
    assert await ask("one")
    assert await living() == ["key:1/one"]


async def test_what_has_ended_is_not_told_as_living(settings: Any) -> None:
    configure(settings, session_idle_seconds=0.4, session_max_concurrent=1)
    await ask("one")
    sessions.leases["key:1/one"].used_at = float("inf")
    await asyncio.sleep(0.45)
    assert await ask("two")

    await presence.beat()

    assert await living() == ["key:1/two"]
    assert list(sessions.leases) == ["key:1/two"]


@pytest.mark.parametrize(
    ("limits", "left", "processes", "expected"),
    [
        ({"a": 3}, {"a": [5, 9, 7]}, 1, 5),
        # One of them has to end, and then another.
        ({"a": 3}, {"a": [5, 9, 7, 1]}, 1, 5),
        ({"a": 3}, {"a": [5, 9, 7, 1]}, 2, 7),
        ({"a": 3}, {"a": [5]}, 3, 5),
        ({"a": 1, "b": 2}, {"a": [5], "b": [8, 6]}, 1, 6),
        ({"a": 1, "b": 3}, {"a": [5], "b": [8, 6]}, 1, 5),
        ({"a": 0}, {"a": []}, 1, 300),
        ({"a": -1, "b": 3}, {"a": [5] * 9, "b": [8, 6]}, 1, None),
    ],
)
def test_a_process_that_decides_alone_tells_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, int],
    left: dict[str, list[float]],
    processes: int,
    expected: float | None,
) -> None:
    monkeypatch.setattr(alone.state, "processes", processes)
    scopes = [Scope(name, most) for name, most in limits.items()]

    found = None
    try:
        alone.decide(scopes, lambda scope: left[scope.name], 300)
    except Full as refused:
        found = refused.seconds

    assert found == expected


async def test_a_session_is_told_of_as_it_was_last_seen(settings: Any) -> None:
    for number, mode in enumerate(("key", "ip")):
        configure(settings, session_client=mode)
        (await enter("one", agent="old", address=f"2001:db8:{number}::1")).end()
        key = Key(1 + number, "another of the same address", None)
        (await enter("one", key, agent="new", address=f"2001:db8:{number}::2")).end()

    await presence.beat()

    await sightings.appender.flushed()
    rows: list[Any] = await clients.for_requests().xrange(sightings.STREAM)
    told = {row["uid"]: row for row in (json.loads(fields["d"]) for _, fields in rows)}
    seen = [[row[name] for name in ("key", "address", "user_agent")] for row in told.values()]
    assert seen == [[1, "2001:db8:0::2", "new"], [2, "2001:db8:1::2", "new"]]


async def test_refused_sessions_are_not_remembered() -> None:
    assert await admitted(50) == 3
    assert len(sessions.leases) == 3


@pytest.mark.slow
async def test_a_hundred_thousand_short_sessions_leave_nothing_behind(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(settings, session_idle_seconds=1.0, session_max_concurrent=-1)
    configure(settings, client_max_in_flight=-1)
    monkeypatch.setattr(limiter, "BOUND_SECONDS", 1)
    monkeypatch.setattr(sticky, "BOUND_SECONDS", 1)
    redis = clients.for_requests()
    # What lives for ever, or a day: the counters of turns.
    await ask("first")
    await redis.delete(*[key async for key in redis.scan_iter("*:key:1/first")])
    await asyncio.sleep(2.5)
    await presence.beat()
    before = await redis.dbsize()

    for begin in range(0, 100_000, 500):
        key = Key(begin // 10_000, "key", None)
        found = await asyncio.gather(*(ask(f"s{begin + n}", key) for n in range(500)))
        assert all(found)
        if begin % 10_000 == 0:
            await presence.beat()
    await presence.beat()
    await asyncio.sleep(3.5)
    await presence.beat()

    assert await redis.dbsize() == before
    assert not sessions.leases
    assert not sticky._seen
    assert not visits.here
    assert not visits.elsewhere
