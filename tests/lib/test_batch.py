"""Commands of concurrent requests go together, and a Redis that hangs holds nobody up for long."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis

from lib import batch as batches
from lib.batch import Away, Batch
from tests.lib.conftest import OwnValkey

pytestmark = pytest.mark.usefixtures("loop_ends")


async def fails(batch: Batch) -> type[Exception]:
    with pytest.raises(redis.RedisError) as caught:
        await batch.run("PING")
    return caught.type


async def test_each_gets_the_answer_to_what_it_asked(own_valkey: OwnValkey) -> None:
    batch = Batch()

    answers = await asyncio.gather(*(batch.run("ECHO", str(n)) for n in range(1200)))

    assert answers == [str(n) for n in range(1200)]


async def test_one_bad_command_fails_alone(own_valkey: OwnValkey) -> None:
    batch = Batch()

    good, bad = await asyncio.gather(
        batch.run("ECHO", "a"), batch.run("NOSUCH"), return_exceptions=True
    )

    assert good == "a"
    assert isinstance(bad, redis.ResponseError)


async def test_a_redis_that_hangs_is_waited_for_three_times_and_then_left_alone(
    own_valkey: OwnValkey,
) -> None:
    batch = Batch()
    assert await batch.run("PING")
    own_valkey.freeze()
    for _ in range(batches.STRIKES):
        assert await fails(batch) is not Away

    began = time.monotonic()
    kinds = {await fails(batch) for _ in range(50)}

    assert kinds == {Away}
    assert time.monotonic() - began < 0.2


async def test_after_a_second_one_tries_and_the_first_answer_ends_it(
    own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PAUSE", 0.3)
    batch = Batch()
    own_valkey.kill()
    for _ in range(batches.STRIKES):
        await fails(batch)
    assert await fails(batch) is Away

    await asyncio.sleep(0.3)
    assert await fails(batch) is not Away
    assert await fails(batch) is Away
    own_valkey.start()
    await asyncio.sleep(0.3)

    assert await batch.run("PING")
    own_valkey.kill()
    assert await fails(batch) is not Away
    assert await fails(batch) is not Away
