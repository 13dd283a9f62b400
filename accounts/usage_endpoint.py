"""Claude's usage endpoint: the only file that knows it, and the door for its errors."""

from __future__ import annotations

import asyncio
from datetime import datetime

import httpx2
import stamina
from django.conf import settings

from accounts import answers
from lib import http
from providers.anthropic import limits, usage
from providers.base import Window

PATH = "/api/oauth/usage"
BETA = "oauth-2025-04-20"
# Without the right to read it, or where there is no such thing.
ABSENT = frozenset({403, 404})
ATTEMPTS, PAUSE_SECONDS = 2, 0.1
# The connection was lost; asking again costs nothing and changes nothing.
BROKEN = (httpx2.NetworkError, httpx2.RemoteProtocolError)


class UsageUnreadable(Exception):
    """No usage came; ask again later.

    `status` None: nothing was answered. `retry_after` is in seconds, 0 if nothing was asked for.
    """

    def __init__(self, why: str, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.status, self.retry_after = status, retry_after


class UsageAbsent(UsageUnreadable):
    """This login has no usage to read, and that is no fault."""


async def read(access_token: str, now: datetime, *, proxy: str = "") -> tuple[Window, ...]:
    """Read an account's windows; raise UsageUnreadable. `proxy` is the account's own, or empty."""
    headers = {"authorization": f"Bearer {access_token}", "anthropic-beta": BETA}
    try:
        async with asyncio.timeout(http.TOTAL_SECONDS), http.client(proxy=proxy) as client:
            async for attempt in stamina.retry_context(
                on=BROKEN,
                attempts=ATTEMPTS,
                wait_initial=PAUSE_SECONDS,
                wait_jitter=PAUSE_SECONDS,
            ):
                with attempt:
                    return await _ask(client, headers, now)
    # A proxy can fail in ways that the client does not translate.
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise UsageUnreadable(type(error).__name__) from None
    raise AssertionError("the last attempt returns or raises")


async def _ask(
    client: httpx2.AsyncClient, headers: dict[str, str], now: datetime
) -> tuple[Window, ...]:
    url = settings.CONFIG.upstream_base_url + PATH
    async with client.stream("GET", url, headers=headers) as response:
        data = await answers.read(response)
        if response.status_code == 200 and data is not None:
            return usage.read(data, now, limits.skew_of(response.headers.get("date"), now))
        # A 403 of the network in front of the API is no JSON, and says nothing about the login.
        is_absent = data is not None and response.status_code in ABSENT
        raise (UsageAbsent if is_absent else UsageUnreadable)(
            f"status {response.status_code}",
            response.status_code,
            limits.retry_after(response.headers.get("retry-after"), now) or 0.0,
        )
