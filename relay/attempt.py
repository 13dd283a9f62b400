"""One attempt at one account: what came of it, and the facts to judge it by."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime

from django.conf import settings
from django.utils import timezone

from accounts import facts
from accounts.pool import Member
from providers.base import Provider
from relay import answer, destination, headers, reserving
from relay.answer import Answer
from relay.facts import Facts, Failed
from relay.ramp import ramp
from relay.request import ClientRequest
from relay.upstream import aiohttp
from relay.upstream.base import Failure, Lost, NotConnected, ProxyFailed, Response, Stale

Read = Callable[[Response, Provider, bool, datetime], Awaitable[tuple[Answer, Facts]]]
Body = bytes | AsyncIterator[bytes]
HOW: dict[type[Exception], Failed] = {
    TimeoutError: Failed.TIMED_OUT,
    NotConnected: Failed.NOT_CONNECTED,
    ProxyFailed: Failed.NO_PROXY,
    Stale: Failed.STALE,
    Lost: Failed.LOST,
}
# What an attempt raises that brought no answer.
NO_ANSWER = (TimeoutError, Failure)


async def make(
    request: ClientRequest,
    member: Member,
    limit: asyncio.Timeout,
    *,
    body: Body | None = None,
    added: Sequence[tuple[str, str]] = (),
    fresh: bool = False,
    read: Read = answer.read,
) -> tuple[Answer | None, Facts]:
    """Send the request with the account's credential; return its answer, if any, and the facts.

    `body` and the `added` headers are for what passes through instead of lying in the request;
    `fresh` asks for a new connection. Whoever gets the answer closes it.
    """
    provider = member.provider
    sent = provider.authenticate(headers.to_upstream(request.headers), member.secret)
    url = destination.url(member, request.target, settings.CONFIG.upstream_base_url)
    whole = destination.body(member, request.body, request.model) if body is None else body
    response, got = None, None
    ramp.enter(member.id)
    try:
        async with limit:
            response = await aiohttp.client().send(
                request.method,
                url,
                [*sent, *added],
                whole,
                fresh=fresh,
                route=destination.route(member),
            )
            now = timezone.now()
            got, known = await read(response, provider, request.stream, now)
            told = got.limits
            facts.note(
                member.id, now, [*told.windows, *told.classic, *filter(None, [told.overage])]
            )
            reserving.watch(member, told, request.model, now, refused=got.status >= 300)
            return got, known
    except NO_ANSWER as error:
        return None, Facts(failed=how(error))
    finally:
        if got is not None:
            got.on_close = functools.partial(ramp.leave, member.id)
        else:
            ramp.leave(member.id)
            if response is not None:
                response.close()


def how(error: TimeoutError | Failure) -> Failed:
    """Return how an attempt ended that brought no answer."""
    return next(failed for kind, failed in HOW.items() if isinstance(error, kind))
