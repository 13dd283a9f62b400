"""The application: its routes and the one path every request takes."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from . import batches, control, files, messages, models, oauth, profile
from .answer import Answer, base_headers, json_answer, new_request_id, text_answer
from .call import Call, identify
from .clock import SettableClock
from .delivery import deliver, hang_up, scripted_body
from .edge import REFUSAL_PAGE
from .errors import ApiError, EdgeRefusal, error_body
from .grants import owner_of
from .multipart import KEPT, Multipart
from .recorder import Entry, Recorder
from .script import Action, Scripts
from .state import Account, ApiKey, World

MAX_BODY = 32 * 1024 * 1024
TOKEN_PATH = "/v1/oauth/token"
MESSAGES_PATH = "/v1/messages"

Endpoint = Callable[[World, Call, Action], Answer]

ROUTES: dict[tuple[str, str], Endpoint] = {
    ("GET", "/oauth/authorize"): oauth.show_authorize,
    ("POST", "/oauth/authorize"): oauth.submit_authorize,
    ("POST", TOKEN_PATH): oauth.issue_tokens,
    ("GET", "/api/oauth/profile"): profile.show_profile,
    ("GET", "/api/oauth/usage"): profile.show_usage,
    ("POST", MESSAGES_PATH): messages.create_message,
    ("POST", "/v1/messages/count_tokens"): messages.count_tokens,
    ("GET", "/v1/models"): models.list_models,
    ("POST", batches.BATCHES): batches.create,
    ("GET", batches.BATCHES): batches.list_all,
    ("POST", files.FILES): files.create,
    ("GET", files.FILES): files.list_all,
}
# What is under a path with an id in it: what comes before the id, and what behind it.
UNDER: dict[tuple[str, str, str], Endpoint] = {
    ("GET", "/v1/models/", ""): models.show_model,
    ("GET", "/v1/messages/batches/", ""): batches.show,
    ("DELETE", "/v1/messages/batches/", ""): batches.delete,
    ("POST", "/v1/messages/batches/", "/cancel"): batches.cancel,
    ("GET", "/v1/messages/batches/", "/results"): batches.results,
    ("GET", "/v1/files/", ""): files.show,
    ("DELETE", "/v1/files/", ""): files.delete,
    ("GET", "/v1/files/", "/content"): files.content,
}
LARGEST = {batches.BATCHES: batches.LARGEST, files.FILES: files.LARGEST}


class Simulator:
    """The world, its scripts and its recorder behind one request handler."""

    def __init__(self, people: int) -> None:
        self.clock = SettableClock()
        self.world = World(self.clock, people)
        self.scripts = Scripts()
        self.recorder = Recorder(self.clock)

    def build(self) -> web.Application:
        """Return the aiohttp application."""
        # Only control bodies are read through aiohttp's own limit; scripts may carry long texts.
        app = web.Application(client_max_size=MAX_BODY)
        control.Control(self.world, self.scripts, self.recorder, self.clock).add_routes(app)
        app.router.add_route("*", "/{path:.*}", self.serve)
        return app

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Record a request, let its script and its endpoint decide, and send the answer."""
        entry = self._open(request)
        try:
            call = await self._receive(request, entry)
            action = self.scripts.take(call)
            with self._in_flight(call):
                response = await self._respond(request, call, action)
        except (asyncio.CancelledError, ConnectionError):
            self.recorder.close(entry, "cut" if entry.was_cut else "client_gone")
            raise
        self.recorder.close(entry, "complete")
        return response

    async def _respond(
        self, request: web.Request, call: Call, action: Action
    ) -> web.StreamResponse:
        """Answer a call; `process` does the real work before anything can go wrong."""
        answer = self._answer(call, action) if action.process else None
        if answer is None and call.path == TOKEN_PATH and (action.is_canned or action.is_lost):
            fields = call.peek()
            grant_type = str(fields.get("grant_type"))
            self.world.log_token_call(grant_type, call.entry.account, "scripted")
        if action.delay:
            await asyncio.sleep(action.delay)
        if action.is_lost:
            await hang_up(request, call.entry, hard=action.reset != "fin")
        if action.is_canned:
            answer = _canned(call, action)
        elif answer is None:
            answer = self._answer(call, action)
        organization = self._organization(call)
        answer.headers = base_headers(call.request_id, organization, self.clock()) | answer.headers
        return await deliver(request, answer, action, call.entry)

    def _answer(self, call: Call, action: Action) -> Answer:
        try:
            return _find_endpoint(call)(self.world, call, action)
        except ApiError as error:
            body = error_body(error.status, error.message, call.request_id)
            return json_answer(error.status, body, error.headers)
        except EdgeRefusal:
            return text_answer(403, REFUSAL_PAGE)

    def _open(self, request: web.Request) -> Entry:
        entry = Entry(
            n=0,
            started_at=self.world.clock(),
            method=request.method,
            target=request.raw_path,
            http_version=f"HTTP/{request.version.major}.{request.version.minor}",
            headers=[(name.decode("latin-1"), _text(value)) for name, value in request.raw_headers],
        )
        who = identify(self.world, request.headers)
        entry.account, entry.credential_kind = who.name, who.kind
        if "x-api-key" in request.headers and "authorization" in request.headers:
            entry.violations.append("both credentials")
        self.recorder.open(entry)
        return entry

    async def _receive(self, request: web.Request, entry: Entry) -> Call:
        body, received, digest = bytearray(), 0, hashlib.sha256()
        largest = LARGEST.get(request.path, MAX_BODY)
        is_upload = request.method == "POST" and request.path == files.FILES
        parts = Multipart(request.headers.get("content-type", "")) if is_upload else None
        keep = KEPT if parts else largest + 1
        try:
            async for chunk in request.content.iter_any():
                received += len(chunk)
                digest.update(chunk)
                # The rest of an oversized body is read but not kept.
                body += chunk[: keep - len(body)]
                if parts:
                    parts.feed(chunk)
        finally:
            entry.body_sha256 = digest.hexdigest() if received > len(body) else None
            self.recorder.keep_body(entry, bytes(body), received)
        call = Call(
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers=request.headers,
            body=_decoded(bytes(body), request.headers.get("content-encoding", "")),
            too_large=received > largest,
            request_id=new_request_id(),
            credential=identify(self.world, request.headers),
            entry=entry,
            pairs=list(request.query.items()),
            multipart=parts,
        )
        entry.request_id = call.request_id
        if call.path == TOKEN_PATH:
            entry.account = owner_of(self.world, call.peek())
        return call

    @contextmanager
    def _in_flight(self, call: Call) -> Iterator[None]:
        payer = self._payer(call) if call.path == MESSAGES_PATH else None
        if payer is None:
            yield
            return
        payer.in_flight += 1
        try:
            yield
        finally:
            payer.in_flight -= 1

    def _payer(self, call: Call) -> Account | ApiKey | None:
        who = call.credential
        if who.kind == "api_key":
            return self.world.api_keys.get(who.secret)
        return self.world.accounts.get(who.name or "")

    def _organization(self, call: Call) -> str | None:
        payer = self._payer(call)
        return payer.organization_uuid if payer else None


def _find_endpoint(call: Call) -> Endpoint:
    endpoint = ROUTES.get((call.method, call.path))
    if endpoint is not None:
        return endpoint
    for (method, before, behind), under in UNDER.items():
        name = call.path.removeprefix(before).removesuffix(behind)
        if call.method == method and call.path == before + name + behind and "/" not in name:
            return under
    if any(path == call.path for _, path in ROUTES):
        raise ApiError(405, "Method Not Allowed")
    raise ApiError(404, "Not found")


def _canned(call: Call, action: Action) -> Answer:
    """Return the answer a script spells out; an error status without body gets the usual one."""
    status = action.status or 200
    if action.body is not None:
        return Answer(status, {"content-type": "application/json"}, scripted_body(action))
    if action.text is not None:
        return text_answer(status, action.text)
    if status < 400:
        return Answer(status)
    return json_answer(status, error_body(status, None, call.request_id))


def _decoded(body: bytes, encoding: str) -> bytes:
    """Undo gzip; a body that cannot be decoded is left for the endpoint to refuse."""
    if encoding.lower() != "gzip":
        return body
    try:
        return gzip.decompress(body)
    except (OSError, EOFError):
        return body


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
