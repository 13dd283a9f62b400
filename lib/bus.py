"""Hints between processes over Redis: "this changed". A hint may be lost; nothing depends on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable

import redis
from django.db import transaction

from lib.redis import (
    REQUEST_TIMEOUT,
    for_jobs,
    for_listening,
    for_requests,
    heed_cancellation,
)

CHANNEL = "carousel:changed"
RECONNECT_SECONDS = 1.0
log = logging.getLogger(__name__)

_handlers: dict[str, list[Callable[[], None]]] = defaultdict(list)
_listener: asyncio.Task[None] | None = None


def on(topic: str, handler: Callable[[], None]) -> None:
    """Call `handler` in this process whenever `topic` changes anywhere."""
    _handlers[topic].append(handler)


def changed(topic: str) -> None:
    """Tell every process, ours included, after the current transaction commits."""
    transaction.on_commit(lambda: _publish(topic))


async def achanged(topic: str) -> None:
    """Tell every process, ours included, from the event loop."""
    _call(topic)
    with contextlib.suppress(redis.RedisError, OSError):
        await for_requests().publish(CHANNEL, topic)


def listen() -> None:
    """Start listening in the running loop, once; called by the first request of a process."""
    global _listener
    loop = asyncio.get_running_loop()
    if _listener is None or _listener.done() or _listener.get_loop() is not loop:
        _listener = loop.create_task(_listen())


async def stop() -> None:
    """Stop listening (at the end of a loop)."""
    global _listener
    if _listener is not None:
        _listener.cancel()
        await asyncio.gather(_listener, return_exceptions=True)
        _listener = None


def _publish(topic: str) -> None:
    _call(topic)
    # Who tells of a change may be serving a request; a hint is not worth a long wait.
    client = for_jobs(REQUEST_TIMEOUT)
    with contextlib.suppress(redis.RedisError, OSError), contextlib.closing(client):
        client.publish(CHANNEL, topic)


def _call(topic: str) -> None:
    for handler in _handlers.get(topic, ()):
        handler()


def _call_all() -> None:
    """Take everything as changed: what was announced while nobody listened is not known."""
    for topic in list(_handlers):
        _call(topic)


async def _listen() -> None:
    while True:
        heed_cancellation()
        try:
            async with for_listening() as client, client.pubsub() as messages:
                await messages.subscribe(CHANNEL)
                async for message in messages.listen():
                    if message["type"] == "message":
                        _call(message["data"])
                    elif message["type"] == "subscribe":
                        _call_all()
        except (redis.RedisError, OSError) as error:
            log.warning("listen for changes: %s", type(error).__name__)
        await asyncio.sleep(RECONNECT_SECONDS)
