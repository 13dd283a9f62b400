"""Webhooks: a POST of JSON, signed as https://www.standardwebhooks.com describes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2
import stamina
from standardwebhooks import Webhook as Signer

from events.notifiers.base import AddressRefused, Message, Outcome, Result
from lib import http, outside

TOTAL_SECONDS = 10.0
LARGEST_ANSWER, READ_SECONDS = 64 * 1024, 2.0
LONGEST_ERROR, LONGEST_WAIT = 100, 999_999_999.0
# A connection that broke at once may be an old one; anything longer waits its turn.
LOST = (httpx2.NetworkError, httpx2.RemoteProtocolError)
RESULTS = {410: Result.GONE, 429: Result.RATE_LIMITED}


class Webhook:
    """Signed JSON to an https address."""

    def check(self, url: str) -> None:
        """Raise AddressRefused unless `url` is https to the public, or what the settings allow."""
        try:
            outside.check(url, with_query=True)
        except outside.Forbidden as error:
            raise AddressRefused(str(error)) from None

    def new_secret(self) -> str:
        """Return a new signing secret."""
        return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()

    async def send(self, message: Message) -> Outcome:
        """Post once, and a second time if the connection breaks; 10 seconds for all of it."""
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                return await _post(message)
        except (TimeoutError, httpx2.TimeoutException):
            return Outcome(Result.LOST, error=f"no answer within {TOTAL_SECONDS:.0f} s")
        except httpx2.ConnectError as error:  # its text may name the host, never the whole address
            return Outcome(Result.LOST, error=str(error)[:LONGEST_ERROR] or "no connection")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return Outcome(Result.LOST, error=f"connection broke ({type(error).__name__})")


async def _post(message: Message) -> Outcome:
    async with http.client(guarded=True) as client:
        async for attempt in stamina.retry_context(
            on=LOST, attempts=2, timeout=TOTAL_SECONDS, wait_initial=0.1, wait_jitter=0.1
        ):
            with attempt:
                return await _post_once(client, message)
    raise AssertionError("the last attempt returns or raises")


async def _post_once(client: httpx2.AsyncClient, message: Message) -> Outcome:
    headers = signed(message, datetime.now(UTC))
    async with client.stream("POST", message.url, content=message.body, headers=headers) as answer:
        with contextlib.suppress(TimeoutError, httpx2.HTTPError):  # what was decided is in its head
            await _read_some(answer)
        if answer.is_success:
            return Outcome(Result.DELIVERED, answer.status_code)
        result = RESULTS.get(answer.status_code, Result.REFUSED)
        wait = seconds(answer.headers.get("retry-after", ""), datetime.now(UTC))
        return Outcome(result, answer.status_code, f"answered {answer.status_code}", wait)


def signed(message: Message, now: datetime) -> dict[str, str]:
    """Return the headers of one try; the receiver refuses a time that is not its own (5 min)."""
    return {
        "content-type": "application/json",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Signer(message.secret).sign(message.id, now, message.body),
    }


def seconds(retry_after: str, now: datetime) -> float:
    """Return the wait that is asked for, given in seconds or as a date; 0 if there is none."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        moment = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_WAIT)


async def _read_some(answer: httpx2.Response) -> None:
    """Read a short answer to its end, so that its sender sees no broken connection."""
    size = 0
    async with asyncio.timeout(READ_SECONDS):
        async for chunk in answer.aiter_raw():
            size += len(chunk)
            if size > LARGEST_ANSWER:
                return
