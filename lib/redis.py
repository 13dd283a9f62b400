"""The only builder of Redis clients: explicit time-outs, no hidden retries."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from django.conf import settings

# redis-py waits 5 s and repeats ten times when nobody says otherwise; a relayed request cannot.
REQUEST_TIMEOUT = 0.25
JOB_TIMEOUT = 5.0

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis] = WeakKeyDictionary()


def for_requests() -> redis.asyncio.Redis:
    """Return the running loop's client for the request path (250 ms per call, one try)."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        _clients[loop] = redis.asyncio.Redis.from_url(
            settings.REDIS_URL,
            socket_timeout=REQUEST_TIMEOUT,
            socket_connect_timeout=REQUEST_TIMEOUT,
            retry=None,
            decode_responses=True,
        )
    return _clients[loop]


def for_listening() -> redis.asyncio.Redis:
    """Return a new client for a subscription (no read time-out)."""
    return redis.asyncio.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=None,
        socket_connect_timeout=2,
        retry=None,
        decode_responses=True,
    )


def for_jobs(timeout: float = JOB_TIMEOUT) -> redis.Redis:
    """Return a new blocking client for jobs, views and commands; the caller closes it."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=None,
        decode_responses=True,
        protocol=2,
    )


def heed_cancellation() -> None:
    """End the task if it was cancelled; for loops that speak to Redis and go on whatever it says.

    The client's time-outs (`asyncio.wait_for` before Python 3.12) may swallow a cancellation: a
    task that then goes on never ends, and its process neither.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def close() -> None:
    """Close the running loop's client."""
    client = _clients.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.aclose()
