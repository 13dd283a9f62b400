"""Pass-through: the client's own login goes upstream as it came, and no account is asked."""

from __future__ import annotations

import asyncio
import random
import re

from django.conf import settings
from django.utils import timezone

from providers.anthropic import API_KEY
from relay import answer, attempt, breaker, verdicts
from relay.addresses import with_results_here
from relay.answer import Answer
from relay.call import Call
from relay.endpoints import BATCH, Kind
from relay.errors import Forbidden, UpstreamProtocol
from relay.facts import Facts, Failed
from relay.failover import NON_STREAM_FACTOR
from relay.headers import CREDENTIALS, to_upstream
from relay.request import ClientRequest
from relay.trail import Attempt, Trail
from relay.upstream import aiohttp
from relay.verdicts import Row
from sessions_limit.keytext import PREFIX

# Nobody has seen the request: on a new connection it is still the same one.
UNSEEN = frozenset({"D01", "D04"})
# These are no answers of the API; every other one is between it and the client.
USELESS = frozenset({"D24", "D25", "D26"})
# How the answer is read: what is told of the login's limits is its holder's affair.
PROVIDER = API_KEY
# Where a word begins: the random part of a login may have these letters too.
RELAY_KEY = re.compile(rb"(?<![\w.-])" + PREFIX.encode())


async def open(call: Call, trail: Trail) -> Answer:
    """Return the API's answer to the client's own login, refusals included; raise RelayError.

    Nothing is chosen, renewed or tried elsewhere, and nothing is learnt about any account.
    """
    _check_login(call.request)
    trail.passes_through = True
    got, row = await _try(call, trail, is_fresh=call.upload is not None)
    if row.id in UNSEEN and not (call.upload and call.upload.begun):
        await asyncio.sleep(random.uniform(*row.wait))
        got, row = await _try(call, trail, is_fresh=True)
    if got is not None and row.id not in USELESS:
        return _own(got, call)
    if got is not None:
        got.close()
    raise row.ends() if row.ends else UpstreamProtocol()


def _check_login(request: ClientRequest) -> None:
    """Keep a relay key that stands where the login should from going anywhere."""
    for name, value in request.headers:
        if name.decode("latin-1") in CREDENTIALS and RELAY_KEY.search(value):
            raise Forbidden(
                "Beside x-relay-key goes your own login, and no relay key: "
                "unset ANTHROPIC_AUTH_TOKEN and ANTHROPIC_API_KEY."
            )


async def _try(call: Call, trail: Trail, *, is_fresh: bool) -> tuple[Answer | None, Row]:
    got, known = await _attempt(call, is_fresh=is_fresh)
    row = verdicts.judge(known)
    trail.attempts.append(Attempt(None, row.id, known.status))
    if call.endpoint.kind is Kind.MESSAGE:
        _tell(row)
    return got, row


def _tell(row: Row) -> None:
    """Tell everybody whether the upstream is there; how it takes one's own login is no news."""
    if row.id == "D01":
        breaker.host.saw(accepted=False, connected=False)
    elif row.id == "D37":
        breaker.host.saw(accepted=True)


async def _attempt(call: Call, *, is_fresh: bool) -> tuple[Answer | None, Facts]:
    request, upload = call.request, call.upload
    limit = asyncio.timeout_at(asyncio.get_running_loop().time() + _seconds(call))
    sent = to_upstream(request.headers, own_login=True)
    if upload is not None and upload.length:
        sent.append(("content-length", upload.length))
    body: attempt.Body = request.body if upload is None else upload.pieces(limit)
    read = answer.read_raw if call.endpoint.kind is Kind.CONTENT else answer.read
    got, response = None, None
    try:
        async with limit:
            response = await aiohttp.client().send(
                request.method,
                settings.CONFIG.upstream_base_url + request.target,
                sent,
                body,
                fresh=is_fresh,
            )
            got, known = await read(response, PROVIDER, request.stream, timezone.now())
            return got, known
    except attempt.NO_ANSWER as error:
        failed = attempt.how(error)
        if failed is Failed.LOST and upload is not None and upload.failure is not None:
            raise upload.failure from None
        return None, Facts(failed=failed)
    finally:
        if got is None and response is not None:
            response.close()


def _seconds(call: Call) -> float:
    is_whole = call.endpoint.kind is Kind.MESSAGE and not call.request.stream
    return float(settings.CONFIG.relay_timeout * (NON_STREAM_FACTOR if is_whole else 1))


def _own(got: Answer, call: Call) -> Answer:
    got.own_login = True
    is_batch = call.endpoint.thing is BATCH and call.endpoint.kind is not Kind.CONTENT
    if is_batch and got.ended and 200 <= got.status < 300:
        # Elsewhere its client would take the relay key along.
        got.head = with_results_here(got.head, call.base)
    return got
