"""What processes count is added up, nothing twice, and survives a Redis that is away."""

from __future__ import annotations

import threading

import pytest
import redis

from lib import counters
from lib import redis as clients
from lib.counters import Deltas, Reading
from tests.lib.conftest import OwnValkey

pytestmark = pytest.mark.usefixtures("loop_ends")


@pytest.fixture
def two(own_valkey: OwnValkey) -> tuple[Deltas, Deltas]:
    """What two processes count."""
    return Deltas(), Deltas()


async def _read() -> Reading:
    try:
        return await counters.read()
    finally:
        await clients.close()


async def test_what_two_processes_count_is_added_up(two: tuple[Deltas, Deltas]) -> None:
    one, other = two
    one.add("requests", "anthropic", "200|x")
    other.add("requests", "anthropic", "200|x", by=2)
    other.add("seconds", by=0.25)
    one.level("open").value += 2
    other.level("open").value += 3
    other.level("open").value -= 2
    one.peak("lag", 0.5)
    one.peak("lag", 0.2)

    assert one.push()
    assert other.push()
    one.add("requests", "anthropic", "200|x")
    assert one.push()

    told = await _read()
    assert told.counters == {("requests", "anthropic", "200|x"): 4.0, ("seconds",): 0.25}
    assert sorted(float(process["open"]) for process in told.processes) == [1.0, 2.0]
    assert [float(p["lag"]) for p in told.processes if "lag" in p] == [0.5]


async def test_what_several_processes_see_is_told_of_once(two: tuple[Deltas, Deltas]) -> None:
    one, other = two
    one.see("sessions", ["a", "b"])
    other.see("sessions", ["b", "c"])
    one.push()
    other.push()
    one.push()

    try:
        told = await counters.read("sessions", "others")
    finally:
        await clients.close()

    assert told.seen == {"sessions": 3, "others": 0}
    assert not any(one._seen.values())


async def test_threads_lose_nothing(two: tuple[Deltas, Deltas]) -> None:
    deltas, _ = two

    def count() -> None:
        for _ in range(5000):
            deltas.add("n")
            deltas.push() if deltas.is_due() else None

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deltas.push()

    assert (await _read()).counters == {("n",): 20_000.0}


async def test_what_is_counted_while_redis_is_away_is_told_later(
    own_valkey: OwnValkey, two: tuple[Deltas, Deltas]
) -> None:
    deltas, _ = two
    deltas.add("n")
    own_valkey.kill()

    assert not deltas.push()
    deltas.add("n", by=2)
    assert not deltas.push()
    with pytest.raises((redis.RedisError, OSError)):
        await _read()
    own_valkey.start()
    assert deltas.push()
    assert deltas.push()

    assert (await _read()).counters == {("n",): 3.0}


async def test_a_push_whose_answer_was_lost_is_not_sent_again(
    two: tuple[Deltas, Deltas],
) -> None:
    deltas, _ = two
    deltas.add("n", by=5)
    deltas.push()
    # As it is when the connection breaks between the transaction and its answer.
    deltas._sending = {("n",): 5.0}
    deltas.add("n")

    assert deltas.push()

    assert (await _read()).counters == {("n",): 6.0}


async def test_a_process_that_is_gone_counts_no_more_as_open_but_what_it_counted_stays(
    own_valkey: OwnValkey, two: tuple[Deltas, Deltas]
) -> None:
    for deltas in two:
        deltas.add("n")
        deltas.level("open").value = 1
        deltas.push()
    with own_valkey.client() as client:
        assert 0 < client.ttl(f"{counters.PROCESSES}:{two[0]._name}") <= counters.GONE_SECONDS
        client.delete(f"{counters.PROCESSES}:{two[0]._name}")

        told = await _read()

        assert client.smembers(counters.PROCESSES) == {two[1]._name}
    assert [process["open"] for process in told.processes] == ["1"]
    assert told.counters == {("n",): 2.0}


async def test_a_web_process_tells_what_is_left_when_it_ends(own_valkey: OwnValkey) -> None:
    counters.deltas.reset()
    counters.keep_pushing()
    counters.keep_pushing()
    counters.add("n", by=7)

    await counters.stop()

    assert (await _read()).counters == {("n",): 7.0}
    assert counters._pusher is None
