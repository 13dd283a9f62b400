"""The door: in which order a client is asked, before its body is read and after.

Key, address, revocation, requests under way, budget, session, rate, body, model; then an account.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator

from django.conf import settings

from lib import peer
from relay import breaker, dealing, drain, endpoints, gate
from relay.endpoints import Endpoint, Kind
from relay.errors import (
    BadRequest,
    BudgetSpent,
    ClientAuth,
    Draining,
    Forbidden,
    KeyLimit,
    LimiterUnavailable,
    RelayError,
    SessionLimit,
    SessionRevoked,
)
from relay.request import (
    MESSAGES,
    ClientRequest,
    Scope,
    credential,
    first,
    key_beside,
    names_session,
    unread,
)
from sessions_limit import budgets, errors, keys, patterns, presence, rates
from sessions_limit.identity import client_of
from sessions_limit.keys import Key
from sessions_limit.visits import Visit

NOT_BESIDE = "This key is no pass-through key: send it as Authorization or x-api-key."
ONLY_BESIDE = "This key is a pass-through key: send it as x-relay-key, beside your own login."
NO_LOGIN = "A pass-through key needs your own login beside it, in Authorization or x-api-key."
NO_BATCH_OF_MODELS = "This key may use certain models only, and a batch may name any."
NO_BATCH_IN_BUDGET = "This key has a budget, and what a batch uses is not seen here."
NOT_FROM_HERE = "This key may not be used from this address."
REFUSALS: dict[type[errors.Refused], type[RelayError]] = {
    errors.Full: SessionLimit,
    errors.Busy: KeyLimit,
    errors.Revoked: SessionRevoked,
    errors.RateLimited: KeyLimit,
    errors.Spent: BudgetSpent,
    errors.Undecided: LimiterUnavailable,
}
# Whoever was revoked need not come back.
WITHOUT_A_TIME = (errors.Revoked, errors.Undecided)


async def visit_of(scope: Scope) -> Visit:
    """Return the visit of whoever shows a good key; who does not leaves no record."""
    if drain.is_draining():
        raise Draining
    headers = tuple(scope["headers"])
    gate.check(headers)
    key = await keys.authenticate(credential(headers))
    if key is None:
        raise ClientAuth
    presence.keep_beating()
    agent = first(headers, b"user-agent").decode("latin-1")
    return Visit(key, client_of(settings.CONFIG.session_client, key.id, peer.of(scope), agent))


async def enter(visit: Visit, scope: Scope, path: str, request_id: str) -> Endpoint:
    """Let a visit in before its body is read; return what it wants, or raise RelayError."""
    key, headers = visit.key, tuple(scope["headers"])
    _check_manner(key, headers)
    if key.networks and not peer.is_within(visit.client.address, key.networks):
        raise Forbidden(NOT_FROM_HERE)
    if pause := breaker.keys.pause(key.id):
        raise KeyLimit(retry_after=math.ceil(pause))
    head = unread(request_id, key, scope, endpoints.name_of(path))
    knows_session = names_session(headers) or head.endpoint not in NAMES_SESSION
    with _refusing():
        if knows_session:
            visit.names(head.session)
            await visit.check_ban()
        visit.begin()
        endpoint = endpoints.find(scope["method"], path)
        if _makes_batch(endpoint):
            _check_batch(key)
        if endpoint.name == MESSAGES:
            await budgets.check(key)
        if knows_session and endpoint.kind is Kind.MESSAGE:
            await _join(visit, head)
        if spends(endpoint):
            await rates.admit(key, request_id)
    return endpoint


async def settle(visit: Visit, request: ClientRequest) -> None:
    """Let a request in whose body is read; raise RelayError.

    Of key and session that is also what became of them while the body was on its way.
    """
    if await keys.authenticate(credential(request.headers)) is None:
        raise ClientAuth
    is_message = request.endpoint in NAMES_SESSION
    if is_message and not patterns.allows(visit.key.models, request.model):
        raise Forbidden(f"This key may not use the model {request.model}.")
    with _refusing():
        if is_message and visit.lease is None:
            visit.names(request.session)
        await visit.check_ban()
        if is_message and visit.lease is None:
            await _join(visit, request)
    visit.settled(is_stream=request.stream)


def spends(endpoint: Endpoint) -> bool:
    """Tell whether an address is one of those that cost something."""
    return endpoint.name == MESSAGES or _makes_batch(endpoint)


def _makes_batch(endpoint: Endpoint) -> bool:
    return endpoint.kind is Kind.CREATE and endpoint.thing is endpoints.BATCH


def _check_batch(key: Key) -> None:
    """Refuse what a batch would get around: its body passes unread, and its use is told nobody."""
    if key.models:
        raise Forbidden(NO_BATCH_OF_MODELS)
    if key.budgets:
        raise Forbidden(NO_BATCH_IN_BUDGET)


async def _join(visit: Visit, request: ClientRequest) -> None:
    claim = None if visit.key.is_passthrough else functools.partial(dealing.claim, request)
    await visit.join(request.session, opens=request.spends_quota, claim=claim)


# Of these the body may say which session it is.
NAMES_SESSION = frozenset(
    {name for name, methods in endpoints.SHAPES.items() if (Kind.MESSAGE, None) in methods.values()}
)


def _check_manner(key: Key, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """Refuse a key that came in the other way than it is meant for."""
    is_beside = key_beside(headers) != b""
    if key.is_passthrough and not is_beside:
        raise Forbidden(ONLY_BESIDE)
    if is_beside and not key.is_passthrough:
        raise Forbidden(NOT_BESIDE)
    if is_beside and not (first(headers, b"authorization") or first(headers, b"x-api-key")):
        raise BadRequest(NO_LOGIN)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except errors.Refused as refused:
        raise as_error(refused) from None


def as_error(refused: errors.Refused) -> RelayError:
    """Return what a refusal means for an HTTP client; it never comes back too early."""
    seconds = None if isinstance(refused, WITHOUT_A_TIME) else max(1, math.ceil(refused.seconds))
    return REFUSALS[type(refused)](str(refused), retry_after=seconds)
