"""What one process decides on sessions while Redis is killed, hangs, is emptied or forgets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import RedisError

from lib import batch as batches
from lib import redis as clients
from lib.redis import REQUEST_TIMEOUT
from sessions_limit import alone, limiter, presence, sessions, sightings, sticky, visits
from sessions_limit.errors import Full, Refused, Undecided
from sessions_limit.identity import Client
from sessions_limit.keys import Key
from sessions_limit.visits import Visit
from tests.lib.conftest import OwnValkey

pytestmark = pytest.mark.usefixtures("loop_ends")

KEY, CLIENT = Key(7, "key", None), Client("key:7", "", "")
# What a machine that is busy with other tests may add.
MARGIN = 0.6


@pytest.fixture(autouse=True)
async def limits(settings: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Three sessions for each client, one process, and nothing known of before."""
    _forget()
    alone.state.processes = 1
    monkeypatch.setattr(batches, "PAUSE", 0.3)

    def set_to(**given: Any) -> None:
        settings.CONFIG = settings.CONFIG.model_copy(update={"session_limit": True} | given)

    set_to(session_max_concurrent=3)
    yield set_to
    _forget()


def _forget() -> None:
    sessions.reset()
    visits.reset()
    presence.reset()
    sticky.reset()
    # Else it would try to be sent for as long as the loop runs.
    sightings.appender._rows.clear()
    sightings.appender._sending.clear()


async def opens(session: str, key: Key = KEY) -> type[Refused] | None:
    """Ask once for a session; return how it was refused, if it was."""
    try:
        await sessions.join(sessions.lease_of(key, CLIENT, session), key)
    except Refused as refused:
        return type(refused)
    return None


async def all_open(*names: str) -> list[type[Refused] | None]:
    return [await opens(name) for name in names]


def counted(own_valkey: OwnValkey) -> set[str]:
    """Return the sessions that Redis counts."""
    with own_valkey.client() as client:
        return {name.rpartition("/")[2] for name in client.zrange(limiter.ALL, 0, -1)}


async def together_again() -> None:
    """Do what the heartbeat does when Redis is back."""
    async with asyncio.timeout(10):
        while alone.state.is_alone:
            await alone.look()
            await asyncio.sleep(0.02)
    await presence.beat()


async def waits(work: Any) -> float:
    began = time.monotonic()
    await work
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("mode", "processes", "own", "outcomes"),
    [
        ("bounded", 1, None, [None, None, Full]),
        ("bounded", 2, None, [None, Full, Full]),
        ("bounded", 9, None, [Full, Full, Full]),
        ("bounded", 2, 5, [None, None, Full]),
        ("bounded", 9, -1, [None, None, None]),
        ("open", 9, None, [None, None, None]),
        # That there may be none is known without counting.
        ("open", 1, 0, [Full, Full, Full]),
        ("closed", 1, 0, [Full, Full, Full]),
        ("closed", 1, None, [Undecided, Undecided, Undecided]),
        ("closed", 1, -1, [None, None, None]),
    ],
)
async def test_new_sessions_while_redis_is_away(
    own_valkey: OwnValkey, limits: Any, mode: str, processes: int, own: int | None, outcomes: Any
) -> None:
    limits(session_fail_mode=mode)
    key = Key(7, "key", None, max_sessions=own)
    assert await opens("known", KEY) is None
    own_valkey.kill()
    alone.state.processes = processes

    assert [await opens(name, key) for name in "abc"] == outcomes
    assert await opens("known", key) is None
    assert alone.state.is_alone


@pytest.mark.parametrize("mode", ["bounded", "closed", "open"])
async def test_a_session_that_another_process_has_open_goes_on_here(
    own_valkey: OwnValkey, limits: Any, mode: str
) -> None:
    limits(session_fail_mode=mode, session_max_concurrent=1)
    now = time.time()
    since = {"theirs": now - 100, "too old": now - 43_200, "too quiet": now - 100}
    with own_valkey.client() as client:
        client.sadd(presence.PROCESSES, "other")
        told = {
            f"{presence.SESSION}{CLIENT.name}/{name}": f"0 0 {at}" for name, at in since.items()
        }
        client.hset(f"{presence.PROCESSES}:other", mapping=told | {presence.ALIVE: ""})
    await presence.exchange()
    quiet = f"{CLIENT.name}/too quiet"
    alone.state.elsewhere[quiet] = since["too quiet"], time.monotonic() - 300
    own_valkey.kill()
    refused = {"bounded": Full, "closed": Undecided, "open": None}[mode]

    assert await all_open("theirs", "too old", "too quiet") == [None, refused, refused]

    assert sessions.lease_of(KEY, CLIENT, "theirs").since == pytest.approx(since["theirs"])
    assert presence.read() == {}


async def test_without_limits_nobody_has_to_count(own_valkey: OwnValkey, limits: Any) -> None:
    limits(session_limit=False, session_fail_mode="closed")
    own_valkey.kill()

    assert await all_open(*"abcdef") == [None] * 6


async def test_a_refusal_says_when_the_first_session_may_be_over(own_valkey: OwnValkey) -> None:
    own_valkey.kill()
    await all_open(*"abc")

    with pytest.raises(Full) as caught:
        await sessions.join(sessions.lease_of(KEY, CLIENT, "d"), KEY)

    assert 299 - MARGIN < caught.value.seconds <= 300
    assert "3 sessions" in str(caught.value)


async def test_what_is_refused_is_not_remembered(own_valkey: OwnValkey) -> None:
    own_valkey.kill()
    await all_open(*"abc")

    for number in range(50):
        visit = Visit(KEY, CLIENT)
        visit.begin()
        with pytest.raises(Full):
            await visit.join(f"more-{number}")
        visit.end()

    assert len(sessions.leases) == 3


async def test_a_known_session_outlives_its_idle_time_by_its_stream_and_keeps_its_age(
    own_valkey: OwnValkey, limits: Any
) -> None:
    limits(session_idle_seconds=1)
    visit = Visit(KEY, CLIENT)
    await visit.join("long")
    await opens("short")
    lease = visit.lease
    assert lease is not None
    uid, since = lease.uid, lease.since
    own_valkey.kill_and_forget()

    for _ in range(5):
        await asyncio.sleep(0.3)
        await presence.beat()
    assert [lease.session for lease in sessions.leases.values()] == ["long"]
    own_valkey.start()
    await together_again()

    assert (lease.uid, counted(own_valkey)) == (uid, {"long"})
    with own_valkey.client() as client:
        assert client.hget(limiter.lease(lease.name), "since") == f"{since:.6f}"
    visit.end()


async def test_a_session_that_is_too_old_ends_also_without_redis(
    own_valkey: OwnValkey, limits: Any
) -> None:
    await opens("old")
    own_valkey.kill()
    lease = sessions.lease_of(KEY, CLIENT, "old")
    assert lease.since is not None
    lease.since -= 43_200
    uid = lease.uid
    lease.told_at = float("-inf")

    assert await all_open("old", "old") == [None, None]

    assert lease.uid != uid


async def test_an_emptied_redis_is_told_of_all_that_is_open(own_valkey: OwnValkey) -> None:
    await all_open(*"abc")
    uids = {lease.uid for lease in sessions.leases.values()}
    await presence.exchange()
    with own_valkey.client() as client:
        client.flushall()

    await presence.exchange()

    assert counted(own_valkey) == set("abc")
    assert await opens("d") is Full
    assert {lease.uid for lease in sessions.leases.values() if lease.since} == uids


async def test_a_session_that_is_used_again_enters_an_emptied_redis_with_its_age(
    own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    await all_open(*"abc")
    uid = sessions.lease_of(KEY, CLIENT, "b").uid
    with own_valkey.client() as client:
        client.flushall()
    monkeypatch.setattr(sessions, "SEEN_SECONDS", 0.0)
    # Meanwhile another process has let in as many as there may be.
    for name in "xyz":
        scopes = sessions.scopes_of(CLIENT, KEY.id)
        await limiter.admit(f"{CLIENT.name}/{name}", scopes, limiter.Life(300, 43_200))

    assert await opens("b") is None

    assert counted(own_valkey) == set("bxyz")
    assert sessions.lease_of(KEY, CLIENT, "b").uid == uid


async def test_what_was_admitted_alone_counts_as_soon_as_redis_is_back(
    own_valkey: OwnValkey,
) -> None:
    await opens("a")
    own_valkey.kill()
    await all_open(*"bc")
    uids = {lease.uid for lease in sessions.leases.values()}
    own_valkey.start()

    await together_again()

    assert counted(own_valkey) == set("abc")
    assert {lease.uid for lease in sessions.leases.values()} == uids
    assert not alone.state.is_alone


async def test_what_a_redis_that_hung_admits_late_takes_no_slot(
    own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the connection must not be lost before it is to be.
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 1.0)
    await all_open(*"ab")
    alone.state.processes = 2
    own_valkey.freeze()
    # It was sent, and is read when Redis wakes up.
    assert await opens("ghost") is Full
    own_valkey.thaw()
    async with asyncio.timeout(10):
        while "ghost" not in await asyncio.to_thread(counted, own_valkey):
            await asyncio.sleep(0.01)

    await presence.beat()

    assert counted(own_valkey) == set("ab")


async def test_a_redis_that_hangs_is_waited_for_by_new_sessions_only_and_not_for_long(
    own_valkey: OwnValkey, limits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(session_max_concurrent=-1)
    await all_open(*"abc")
    await presence.exchange()
    own_valkey.freeze()

    # Seen just now: it does not even notice.
    assert await waits(opens("a")) < 0.1
    assert not alone.state.is_alone
    monkeypatch.setattr(sessions, "SEEN_SECONDS", 0.0)
    first = [await waits(opens(f"new-{n}")) for n in range(batches.STRIKES)]
    known = await waits(asyncio.gather(*(all_open(*"abc") for _ in range(50))))
    new = await waits(all_open(*(f"next-{n}" for n in range(50))))

    assert all(REQUEST_TIMEOUT - 0.05 < seconds < REQUEST_TIMEOUT + MARGIN for seconds in first)
    assert known < MARGIN
    # One of them may be the one that tries again after the pause.
    assert new < REQUEST_TIMEOUT + MARGIN
    own_valkey.thaw()


async def test_the_heartbeat_of_many_sessions_ends_though_redis_hangs(
    own_valkey: OwnValkey, limits: Any
) -> None:
    limits(session_max_concurrent=-1)
    taken = [Visit(KEY, CLIENT) for _ in range(600)]
    await asyncio.gather(*(visit.join(f"s{n}") for n, visit in enumerate(taken)))
    await presence.beat()
    own_valkey.freeze()

    # Two round trips for lives and one for counts wait for it; each by itself, it were minutes.
    took = [await waits(presence.beat()) for _ in range(2)]
    own_valkey.thaw()

    assert max(took) < 5
    assert len(asyncio.all_tasks()) < 10
    for visit in taken:
        visit.end()


async def test_a_redis_that_forgets_its_scripts_refuses_nobody(
    own_valkey: OwnValkey, limits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy test machine is not a Redis that is away.
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 10.0)
    limits(session_max_concurrent=-1)

    def forget_over_and_over() -> None:
        with own_valkey.client() as client:
            for _ in range(100):
                client.script_flush()

    forgetting = asyncio.create_task(asyncio.to_thread(forget_over_and_over))
    asked = 0
    while not forgetting.done() or asked < 200:
        names = [f"s{asked + n}" for n in range(20)]
        assert set(await asyncio.gather(*(opens(name) for name in names))) == {None}
        asked += 20

    assert not alone.state.is_alone
    assert len(counted(own_valkey)) == asked


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_pages_and_jobs_wait_a_moment_at_most(
    own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(presence, "PATIENCE", 0.3)
    getattr(own_valkey, fault)()

    async def asks(call: Any, *given: Any) -> Any:
        began = time.monotonic()
        try:
            return await asyncio.to_thread(call, *given)
        except RedisError as error:
            return type(error)
        finally:
            assert time.monotonic() - began < 0.3 + MARGIN

    assert await asks(presence.read) == {}
    told = [await asks(limiter.living, 0.3)]
    told.append(await asks(limiter.ban, ["key:7/a"], time.time() + 60, 0.3))
    assert all(issubclass(error, RedisError) for error in told)
    own_valkey.thaw() if fault == "freeze" else own_valkey.start()


async def test_what_others_told_fades_while_redis_is_away(
    own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_valkey.client() as client:
        client.sadd(presence.PROCESSES, "other")
        told = {presence.ALIVE: "", presence.CLIENT + CLIENT.name: "64 0"}
        client.hset(f"{presence.PROCESSES}:other", mapping=told)
        client.pexpire(f"{presence.PROCESSES}:other", 300)
    await presence.exchange()
    assert (visits.elsewhere[CLIENT.name], alone.state.processes) == (64, 2)
    own_valkey.kill()
    monkeypatch.setattr(presence, "PERIOD", 0.1)

    presence.keep_beating()
    async with asyncio.timeout(10):
        while visits.elsewhere[CLIENT.name]:
            await asyncio.sleep(0.01)
    await presence.stop()

    # They may live all the same: the limit is shared with them as before.
    assert alone.state.processes == 2
