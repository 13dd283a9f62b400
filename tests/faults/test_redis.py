"""Redis is killed, hangs or is emptied: streams run on, sessions are served, records arrive."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import sync_to_async

from events.models import Event
from lib import streams
from sessions_limit import sticky
from tests.faults.conftest import OwnValkey, Work, streams_running
from usage import recorder
from usage.models import RequestRecord

pytestmark = pytest.mark.usefixtures("own_valkey")


async def test_a_restart_of_redis_is_not_noticed(own_valkey: OwnValkey, work: Work) -> None:
    async with streams_running(work, seconds=2):
        own_valkey.kill()
        await work.keep_asking(1)
        own_valkey.start()
        await work.keep_asking(0.5)

    work.was_never_held_up()
    await work.is_recorded_once()


async def test_a_redis_that_hangs_costs_nobody_more_than_a_moment(
    own_valkey: OwnValkey, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if all sessions had been quiet for longer: each request wants to ask Redis.
    monkeypatch.setattr(sticky, "SEEN_SECONDS", 0.0)
    async with streams_running(work, seconds=3):
        own_valkey.freeze()
        await work.keep_asking(2)
        slowest, work.slowest = work.slowest, 0.0
        await work.keep_asking(0.5)
        own_valkey.thaw()

    assert slowest < 2
    work.was_never_held_up()
    await work.is_recorded_once()


async def test_a_refusal_while_redis_hangs_fails_over_at_once(
    own_valkey: OwnValkey, work: Work
) -> None:
    work.relay.simulator.limit("ada@example.com", {"5h": {"status": "rejected"}})
    own_valkey.freeze()

    statuses = await asyncio.gather(*(work.ask(session) for session in "abcd"))

    own_valkey.thaw()
    assert set(statuses) == {200}
    assert work.slowest < 1
    assert (await work.relay.account("ada")).status == "rate_limited"


async def test_an_emptied_redis_loses_no_record_and_moves_no_session(
    own_valkey: OwnValkey, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sticky, "SEEN_SECONDS", 0.0)
    before = work.relay.served()[:4]
    async with streams_running(work, seconds=2):
        await work.keep_asking(0.5)
        with own_valkey.client() as client:
            assert client.xlen(recorder.STREAM) > 4
            client.flushall()
        # In another order than the one in which they were dealt.
        for session in "bcda":
            await work.ask(session)

    assert work.relay.served()[-4:] == [*before[1:], before[0]]
    work.was_never_held_up()
    await work.is_recorded_once()


async def test_redis_emptied_between_reading_and_writing_loses_no_record(
    own_valkey: OwnValkey, work: Work
) -> None:
    await work.relay.running.idle()
    write = recorder.write

    def empty_and_write(rows: list[recorder.Row]) -> None:
        with own_valkey.client() as client:
            client.flushall()
        write(rows)

    while not await sync_to_async(_length)(own_valkey):
        await asyncio.sleep(0.01)
    await sync_to_async(streams.drain)(recorder.STREAM, empty_and_write)

    await work.is_recorded_once()


async def test_what_could_not_be_kept_while_redis_was_away_is_said_in_the_journal(
    own_valkey: OwnValkey, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    await work.is_recorded_once()
    own_valkey.kill()
    monkeypatch.setattr(streams, "BUFFER", 3)
    await asyncio.gather(*(work.ask(session) for session in "abcdabcd"))
    await work.relay.running.idle()
    own_valkey.start()

    await recorder.appender.flushed()
    await sync_to_async(recorder.drain)()

    told = await Event.objects.aget(kind="usage.lost", subject="stream:requests")
    kept = await RequestRecord.objects.acount()
    assert told.data["count"] == len(work.asked) - kept
    assert told.data["count"] > 0


def _length(own_valkey: OwnValkey) -> int:
    with own_valkey.client() as client:
        return int(client.xlen(recorder.STREAM))
