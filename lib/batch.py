"""Redis commands of concurrent requests, sent together over one connection."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

import redis

from lib.redis import for_requests

LARGEST = 500
Command = tuple[Any, ...]


class Batch:
    """Collects what is asked while a round trip is under way, and sends it as the next one.

    A hundred requests that come at once cost two round trips instead of a hundred connections, and
    a request that is cancelled leaves no connection half-read.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Command, asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def run(self, *command: Any) -> Any:
        """Return the answer to one command; raise RedisError or OSError."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((command, answer))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        return await answer

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
            try:
                results = await _round_trip(batch)
            except BaseException:
                # Nobody may wait for an answer that will not come.
                for _, answer in batch:
                    answer.cancel()
                raise
            for (_, answer), result in zip(batch, results, strict=True):
                if answer.done():
                    continue
                if isinstance(result, Exception):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)


async def _round_trip(batch: list[tuple[Command, asyncio.Future[Any]]]) -> list[Any]:
    pipeline = for_requests().pipeline(transaction=False)
    for command, _ in batch:
        pipeline.execute_command(*command)
    try:
        return list(await pipeline.execute(raise_on_error=False))
    except (redis.RedisError, OSError) as error:
        return [error for _ in batch]


_batches: WeakKeyDictionary[asyncio.AbstractEventLoop, Batch] = WeakKeyDictionary()


def batch() -> Batch:
    """Return the running loop's batch."""
    return _batches.setdefault(asyncio.get_running_loop(), Batch())
