"""The entry of the data plane: a plain ASGI app, from a request's first byte to its record."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from django.db import Error as DatabaseError

from relay import drain, failover
from relay.deliver import Delivery, Send
from relay.errors import (
    ClientAuth,
    ClientGone,
    Draining,
    Method,
    NotFound,
    PoolUnavailable,
    RelayError,
)
from relay.request import ClientRequest, Scope, credential, new_id, parse, read_body
from relay.trail import Ended, Trail
from sessions_limit import keys, sessions
from usage import recorder

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ROUTES = {"/v1/messages": "POST", "/v1/messages/count_tokens": "POST", "/v1/models": "GET"}
MODEL = "/v1/models/"
PROBES = (("HEAD", "/api/hello"), ("HEAD", "/"))
WATCH_SECONDS = 10.0
log = logging.getLogger(__name__)


class Relay:
    """Serves the addresses of the API; everything else goes to `otherwise` (Django)."""

    def __init__(self, otherwise: App) -> None:
        self.otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["raw_path"].decode("latin-1")
        if path.startswith("/v1/"):
            await _relay(scope, receive, send, path)
        elif _is_probe(scope, path):
            await _answer_probe(send)
        else:
            await self.otherwise(scope, receive, send)


async def _relay(scope: Scope, receive: Receive, send: Send, path: str) -> None:
    delivery = Delivery(new_id(), Trail(), scope, send)
    try:
        request = await _admit(scope, receive, path, delivery.request_id)
    except ClientGone:
        return
    except RelayError as error:
        await delivery.refuse(error)
        return
    except Exception as error:
        await delivery.refuse(_unforeseen(error, delivery.request_id))
        return
    try:
        await _serve(request, delivery, receive)
    finally:
        _record(request, delivery.trail)
    # Not while the client is watched: a complete answer ends that, whatever still runs.
    await _stay(request, delivery.trail)


async def _admit(scope: Scope, receive: Receive, path: str, request_id: str) -> ClientRequest:
    """Return the request once its key is known and its body is here; raise RelayError."""
    if drain.is_draining():
        raise Draining
    headers = tuple(scope["headers"])
    key = await keys.authenticate(credential(headers))
    if key is None:
        raise ClientAuth
    endpoint = MODEL if _names_a_model(path) else path
    method = "GET" if endpoint == MODEL else ROUTES.get(endpoint)
    if method is None:
        raise NotFound
    if scope["method"] != method:
        raise Method(f"{endpoint} takes {method} only.")
    body = await read_body(headers, receive)
    return parse(request_id, key, scope, endpoint, headers, body)


async def _serve(request: ClientRequest, delivery: Delivery, receive: Receive) -> None:
    """Open and deliver while watching the client: whoever hangs up ends the upstream's work too."""
    serving = asyncio.ensure_future(_open_and_deliver(request, delivery))
    # The body is read: only a disconnect can come now.
    gone = asyncio.ensure_future(receive())
    try:
        while not serving.done() and not gone.done():
            await asyncio.wait(
                {serving, gone}, timeout=WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if delivery.is_stuck():
                delivery.cut()
                break
    finally:
        for task in (gone, serving):
            task.cancel()
        await asyncio.gather(gone, serving, return_exceptions=True)
    if not serving.cancelled() and (error := serving.exception()):
        raise error


async def _open_and_deliver(request: ClientRequest, delivery: Delivery) -> None:
    try:
        answer = await failover.open(request, delivery.trail)
    except RelayError as error:
        await delivery.refuse(error)
        return
    except Exception as error:
        await delivery.refuse(_unforeseen(error, request.id))
        return
    await delivery.answer(answer)


def _unforeseen(error: Exception, request_id: str) -> RelayError:
    """Log what nobody expected and return what the client is told; a dead database may return."""
    if isinstance(error, DatabaseError):
        log.error("serve request %s: %s", request_id, type(error).__name__)
        return PoolUnavailable()
    log.exception("serve request %s", request_id, exc_info=error)
    return RelayError()


async def _stay(request: ClientRequest, trail: Trail) -> None:
    """Keep a session with the account that served it when it was not the one it was bound to."""
    moved = len({attempt.account for attempt in trail.attempts}) > 1
    if moved and request.session and trail.status == 200 and trail.account is not None:
        await sessions.move(request.key.id, request.session, trail.account)


def _record(request: ClientRequest, trail: Trail) -> None:
    recorder.append(
        {
            "request_id": request.id,
            "key": request.key.id,
            "account": trail.account,
            "session": request.session or "",
            "endpoint": request.endpoint,
            "model": request.model,
            "stream": request.stream,
            "status": trail.status,
            "ended": trail.ended,
            "attempts": len(trail.attempts),
            "input_tokens": trail.usage.input_tokens,
            "output_tokens": trail.usage.output_tokens,
            "cache_read_tokens": trail.usage.cache_read_input_tokens,
            "cache_write_tokens": trail.usage.cache_creation_input_tokens,
            "started_at": trail.started_at,
            "first_byte_at": trail.first_byte_at,
            "ended_at": time.time(),
        }
    )
    level = logging.WARNING if trail.ended is not Ended.COMPLETE else logging.INFO
    log.log(
        level,
        "relay %s: %s %d %s, key %d, account %s, attempts %s",
        request.id,
        request.endpoint,
        trail.status,
        trail.ended,
        request.key.id,
        trail.account,
        ",".join(attempt.row for attempt in trail.attempts) or "none",
    )


def _names_a_model(path: str) -> bool:
    """Tell whether a path is that of one model; an upstream must not read another one into it."""
    name = unquote(path.removeprefix(MODEL))
    return path.startswith(MODEL) and name not in ("", ".", "..") and not set("/\\") & set(name)


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
