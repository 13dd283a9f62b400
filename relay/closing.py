"""The end of a web process: nothing that was begun is lost, and no connection is left open."""

from __future__ import annotations

from accounts import facts, tokens
from lib import bus, counters, redis
from relay import effects, model_lists, quota, resources
from relay.upstream import aiohttp
from sessions_limit import presence, rates, sightings
from usage import recorder


async def close() -> None:
    """Wait for refreshes, states and queued rows, then close what this loop has opened.

    It waits as long as the token endpoint or Redis let it; the caller sets the limit.
    """
    await tokens.settled()
    await effects.settled()
    await resources.settled()
    await quota.settled()
    await rates.settled()
    await model_lists.stop()
    await recorder.appender.flushed()
    await facts.facts.flushed()
    await presence.stop()
    await sightings.appender.flushed()
    await counters.stop()
    await bus.stop()
    await aiohttp.close()
    await redis.close()
