"""The entry of the data plane: a plain ASGI app, from a request's first byte to its record."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError

from accounts import pool
from relay import (
    addresses,
    admission,
    catalogue,
    endpoints,
    failover,
    gate,
    listing,
    live,
    outcomes,
    passthrough,
    resources,
)
from relay.answer import Answer
from relay.call import Call
from relay.deliver import Delivery, Send
from relay.endpoints import Kind
from relay.errors import ClientGone, NotFound, PoolUnavailable, RelayError
from relay.record import record, spending
from relay.request import ClientRequest, Scope, new_id, parse, read_body, unread
from relay.trail import Ended, Trail
from relay.uploads import Upload
from sessions_limit import budgets, rates, sticky
from sessions_limit.visits import Visit

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# How Claude's own programs speak to claude.ai; a pooled credential has no business there.
NOT_SERVED = ("/api/oauth", "/api/claude")
PROBES = (("HEAD", "/api/hello"), ("HEAD", "/"))
# With the second for which what was read is fresh, and the time to read: never over ten.
WATCH_SECONDS = 8.0
log = logging.getLogger(__name__)


class Relay:
    """Serves the addresses of the API; everything else goes to `otherwise` (Django)."""

    def __init__(self, otherwise: App) -> None:
        self.otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["raw_path"].decode("latin-1")
        try:
            is_ours = gate.is_relay_path(path)
        except RelayError as error:
            await Delivery(new_id(), Trail(), scope, send).refuse(error)
            return
        if is_ours:
            await _relay(scope, receive, send, path)
        elif path.startswith(NOT_SERVED):
            await Delivery(new_id(), Trail(), scope, send).refuse(NotFound())
        elif _is_probe(scope, path):
            await _answer_probe(send)
        else:
            await self.otherwise(scope, receive, send)


async def _relay(scope: Scope, receive: Receive, send: Send, path: str) -> None:
    delivery = Delivery(new_id(), Trail(), scope, send)
    try:
        visit = await admission.visit_of(scope)
    except Exception as error:
        await delivery.refuse(_as_refusal(error, delivery.request_id))
        return
    try:
        await _serve_visit(visit, delivery, scope, receive, path)
    finally:
        visit.end()


async def _serve_visit(
    visit: Visit, delivery: Delivery, scope: Scope, receive: Receive, path: str
) -> None:
    try:
        call = await _admit(visit, scope, receive, path, delivery.request_id)
    except Exception as error:
        if not isinstance(error, ClientGone):
            await delivery.refuse(_as_refusal(error, delivery.request_id))
        seen = unread(delivery.request_id, visit.key, scope, endpoints.name_of(path))
        record(seen, delivery.trail)
        await visit.withdraw()
        return
    request, trail = call.request, delivery.trail
    budgets.begun(visit.key, request.id, functools.partial(spending, request, trail))
    try:
        await _serve(call, delivery, call.upload.gone if call.upload else receive, visit)
    finally:
        if call.upload is not None:
            trail.bytes_received = call.upload.size
        record(request, trail)
        budgets.ended(visit.key, request.id)
        rates.spent(visit.key, trail.counted_tokens)
    if visit.key.is_passthrough:
        return
    # Not while the client is watched: a complete answer ends that, whatever still runs.
    if call.endpoint.kind is Kind.MESSAGE:
        await _learn(request, trail)
    if call.endpoint.kind in MOVING:
        await _stay(request, trail)


async def _admit(visit: Visit, scope: Scope, receive: Receive, path: str, request_id: str) -> Call:
    """Return the request once its body is here, or may pass through."""
    headers = tuple(scope["headers"])
    endpoint = await admission.enter(visit, scope, path, request_id)
    upload, body = None, b""
    if endpoint.kind is Kind.CREATE and endpoint.thing is not None:
        upload = Upload(headers, receive, endpoint.thing.largest)
    else:
        body = await read_body(headers, receive)
    names_model = endpoint.kind is Kind.MESSAGE
    request = parse(
        request_id, visit.key, scope, endpoint.name, headers, body, names_model=names_model
    )
    await admission.settle(visit, request)
    base = addresses.own(settings.CONFIG.public_url, scope["scheme"], headers)
    if visit.claimed is not None:
        request = replace(request, claimed=visit.claimed)
    return Call(request, endpoint, base, upload)


async def _serve(
    call: Call, delivery: Delivery, hang_up: Callable[[], Awaitable[Any]], visit: Visit
) -> None:
    """Open and deliver while watching the client: whoever hangs up ends the upstream's work too."""
    serving = asyncio.ensure_future(_open_and_deliver(call, delivery, visit))
    # The body is read, or passes through: only a disconnect can come now.
    gone = asyncio.ensure_future(hang_up())
    with live.watched(visit.key.id, delivery.trail, visit.suspect) as ended:
        try:
            while not await _is_any_done(serving, gone, ended):
                live.check()
                if delivery.is_stuck():
                    delivery.cut(Ended.TIMEOUT)
                    break
        finally:
            for task in (gone, serving):
                task.cancel()
            await asyncio.gather(gone, serving, return_exceptions=True)
        if ended.done() and not ended.cancelled() and serving.cancelled():
            await delivery.end(ended.result())
    if not serving.cancelled() and (error := serving.exception()):
        raise error


async def _is_any_done(*awaited: asyncio.Future[Any]) -> bool:
    done, _ = await asyncio.wait(
        awaited, timeout=WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED
    )
    return bool(done)


async def _open_and_deliver(call: Call, delivery: Delivery, visit: Visit) -> None:
    open = passthrough.open if call.request.key.is_passthrough else OPEN[call.endpoint.kind]
    try:
        answer = await open(call, delivery.trail)
    except ClientGone:
        return
    except Exception as error:
        await delivery.refuse(_as_refusal(error, call.request.id))
    else:
        await delivery.answer(answer)
    # Who has read the last byte may come again before anybody here has heard that it went out.
    visit.end()


async def _message(call: Call, trail: Trail) -> Answer:
    return await failover.open(call.request, trail)


OPEN: dict[Kind, Callable[[Call, Trail], Awaitable[Answer]]] = {
    Kind.MESSAGE: _message,
    Kind.MODELS: catalogue.open_list,
    Kind.MODEL: catalogue.open_one,
    Kind.CREATE: resources.create,
    Kind.LIST: listing.open,
    Kind.READ: resources.use,
    Kind.CONTENT: resources.use,
    Kind.DELETE: resources.use,
}
MOVING = (Kind.MESSAGE, Kind.CREATE)


def _as_refusal(error: Exception, request_id: str) -> RelayError:
    """Return what the client is told; log what nobody expected. A dead database may return."""
    if isinstance(error, RelayError):
        return error
    if isinstance(error, DatabaseError):
        log.error("serve request %s: %s", request_id, type(error).__name__)
        return PoolUnavailable()
    log.exception("serve request %s", request_id, exc_info=error)
    return RelayError()


async def _learn(request: ClientRequest, trail: Trail) -> None:
    """Note how a delivered answer ended; not knowing the pool, the database being away, is fine."""
    with contextlib.suppress(DatabaseError):
        outcomes.ended(trail, request.model, await pool.snapshot.get())


async def _stay(request: ClientRequest, trail: Trail) -> None:
    """Keep a session with the account that served it when it was not the one it was bound to.

    Not while the API is spared: its sessions go back as soon as it does.
    """
    moved = trail.account is not None and trail.account != trail.bound and not trail.is_spared
    if moved and request.session and trail.status == 200 and trail.account is not None:
        await sticky.move(request.key.id, request.session, trail.account)


def _is_probe(scope: Scope, path: str) -> bool:
    """Tell whether a tool only asks if somebody is there; a browser gets the console at `/`."""
    if (scope["method"], path) in PROBES:
        return True
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
    return scope["method"] == "GET" and path == "/" and b"text/html" not in accepted


async def _answer_probe(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
