"""One free request that tells whether an account's credential works."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import httpx2
from asgiref.sync import async_to_sync
from django.conf import settings
from django.utils import timezone

from accounts import pool
from accounts.errors import MoveRefused
from accounts.models import Account
from accounts.pool import Member
from events import journal
from lib import http

# Lists models: it costs no quota and every kind of credential may do it.
PATH = "/v1/models?limit=1"
HEADERS = [("anthropic-version", "2023-06-01"), ("accept", "application/json")]
SECONDS = 15.0
WORKS = "The credential works. How much of its limits is left only a message tells."
REFUSED = "The credential was refused ({}). Refresh it, or link the account again."
SENTENCES = {
    200: WORKS,
    401: REFUSED.format(401),
    403: REFUSED.format(403),
    404: "It answers, but has no list of models: only a message tells if the credential works.",
    429: "It answers that it is asked too often, which says nothing of the credential.",
}
ODD = "It answered {}, which says nothing of the credential."


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a check: `status` is the answer's, 0 when none came; `ms` how long it took."""

    ok: bool
    status: int
    ms: int
    sentence: str

    @property
    def is_refused(self) -> bool:
        """Tell whether the upstream itself said no to the credential."""
        return self.status in (401, 403)

    @property
    def says_nothing(self) -> bool:
        """Tell whether another try may say more: no answer came, or none about the credential."""
        return self.status in (0, 429) or self.status >= 500


def test(account: Account, *, by: str) -> Result:
    """Try an account's credential at no cost, through its own proxy; raise MoveRefused.

    The account stays as it is: a refusal is told, and its next refresh or message decides.
    """
    member = pool.load().member(account.pk)
    if member is None:
        raise MoveRefused(f"{account.name} has no credential that opens. Link it again.")
    result = async_to_sync(_ask)(member)
    journal.record(
        "account.tested",
        account.subject,
        by=by,
        ok=result.ok,
        status=result.status,
        ms=result.ms,
    )
    return result


async def _ask(member: Member) -> Result:
    if member.expires_at is not None and member.expires_at <= timezone.now():
        return Result(False, 0, 0, "Its token has ended. Refresh it, then test it again.")
    base = member.endpoint.base_url if member.endpoint else settings.CONFIG.upstream_base_url
    headers = member.provider.authenticate(HEADERS, member.secret)
    is_typed = member.endpoint is not None
    started = time.monotonic()
    try:
        async with (
            asyncio.timeout(SECONDS),
            http.client(proxy=member.proxy, guarded=is_typed) as client,
            # Its body is nobody's business, and could be endless.
            client.stream("GET", base + PATH, headers=headers) as response,
        ):
            status = response.status_code
    except httpx2.ProxyError:
        return Result(False, 0, _since(started), "Its proxy could not be reached or refused.")
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        return Result(False, 0, _since(started), f"No answer came ({type(error).__name__}).")
    sentence = SENTENCES.get(status, ODD.format(status))
    return Result(status == 200, status, _since(started), sentence)


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
