"""Redis commands of concurrent requests, sent together over one connection."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any
from weakref import WeakKeyDictionary

import redis

from lib.redis import for_requests

LARGEST = 500
STRIKES, WITHIN, PAUSE = 3, 5.0, 1.0
Command = tuple[Any, ...]
Asked = tuple[Command, asyncio.Future[Any]]


class Away(redis.ConnectionError):
    """Redis failed several times a moment ago, and was not asked."""


class Batch:
    """Collects what is asked while a round trip is under way, and sends it as the next one.

    A hundred requests that come at once cost two round trips instead of a hundred connections, and
    a request that is cancelled leaves no connection half-read. After STRIKES failures in WITHIN
    seconds nobody waits for Redis any more: for PAUSE seconds all is refused at once, then one
    round trip tries again.
    """

    def __init__(self) -> None:
        self._waiting: list[Asked] = []
        self._sender: asyncio.Task[None] | None = None
        self._strikes: deque[float] = deque(maxlen=STRIKES)
        self._away_until = float("-inf")

    async def run(self, *command: Any) -> Any:
        """Return the answer to one command; raise RedisError or OSError."""
        if time.monotonic() < self._away_until:
            raise Away
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((command, answer))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        return await answer

    @property
    def is_failing(self) -> bool:
        """Tell whether the last round trip failed; who can do without Redis need not wait then."""
        return bool(self._strikes)

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
            try:
                results = await self._try(batch)
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

    async def _try(self, batch: list[Asked]) -> list[Any]:
        if time.monotonic() < self._away_until:
            return [Away() for _ in batch]
        try:
            results = await _round_trip(batch)
        except (redis.RedisError, OSError) as error:
            now = time.monotonic()
            self._strikes.append(now)
            if len(self._strikes) == STRIKES and now - self._strikes[0] < WITHIN:
                self._away_until = now + PAUSE
            return [error for _ in batch]
        self._strikes.clear()
        return results


async def _round_trip(batch: list[Asked]) -> list[Any]:
    pipeline = for_requests().pipeline(transaction=False)
    for command, _ in batch:
        pipeline.execute_command(*command)
    return list(await pipeline.execute(raise_on_error=False))


_batches: WeakKeyDictionary[asyncio.AbstractEventLoop, Batch] = WeakKeyDictionary()


def batch() -> Batch:
    """Return the running loop's batch."""
    return _batches.setdefault(asyncio.get_running_loop(), Batch())
