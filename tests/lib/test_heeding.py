"""A loop that speaks to Redis ends when it is cancelled, whatever the client makes of that."""

from __future__ import annotations

import asyncio

import pytest

from lib.redis import heed_cancellation


async def _goes_on() -> None:
    while True:
        heed_cancellation()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            # As the client does whose time-out comes at the same moment.
            continue


async def test_a_cancellation_that_was_swallowed_ends_it_all_the_same() -> None:
    task = asyncio.create_task(_goes_on())
    await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)


async def test_whoever_was_not_cancelled_goes_on() -> None:
    heed_cancellation()
