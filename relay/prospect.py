"""Would a request be served now, and why not: routed like any other, and never sent."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.utils import timezone

from accounts import pool
from accounts.pool import Pool
from relay import breaker, drain, news, routing, waking
from relay.bench import bench
from relay.capabilities import offers
from relay.errors import Draining, RelayError, UpstreamUnavailable
from relay.request import ClientRequest
from sessions_limit.keys import Key

HEADERS = ((b"user-agent", b"claude-cli/ (health)"),)
# Bound to no group, so that every account counts.
ANY_KEY = Key(0, "health", None)


@dataclass(frozen=True, slots=True)
class Prospect:
    """What would become of a request: `refusal` is what its client would be told, None if nothing.

    `skipped` says of every account of `pool` that could not serve it why not.
    """

    refusal: RelayError | None
    pool: Pool
    skipped: dict[int, str]


def claude_code(model: str = "") -> ClientRequest:
    """Return a request as Claude Code makes it, for one model or for any."""
    return ClientRequest("", ANY_KEY, "POST", "/v1/messages", "", HEADERS, b"", model)


async def look(request: ClientRequest) -> Prospect:
    """Return what would become of `request`; raise DatabaseError when the pool is not known."""
    now = timezone.now()
    view = await pool.snapshot.get()
    await offers.follow()
    news.follow(view, now)
    found = routing.candidates(view, bench, request, now)
    members = [member for member in view.members if member.id in found.usable]
    if not members and settings.CONFIG.wake_idle:
        members = [member for member in view.members if waking.may_be_woken(member, request, now)]
    refusal: RelayError | None = None
    if drain.is_draining():
        refusal = Draining()
    elif not members:
        refusal = routing.nobody(view, bench, request, now)
    elif breaker.host.is_closed() and all(member.endpoint is None for member in members):
        refusal = UpstreamUnavailable()
    return Prospect(refusal, view, found.skipped)
