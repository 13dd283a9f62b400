"""The client's request: read once, checked, frozen; its bytes are never made anew."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from relay.errors import BadRequest, BodyTimeout, ClientAuth, ClientGone, Encoding, TooLarge
from sessions_limit.identity import session_of
from sessions_limit.keys import Key

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

LIMIT = 32 * 1024 * 1024
# The API's own limit; what is longer would be kept in every record.
LONGEST_MODEL = 256
BODY_SECONDS = 120.0
MESSAGES = "/v1/messages"
SESSION = b"x-claude-code-session-id"


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """One request of a client, whole.

    `target` is path and query as they came; `session` is None when the client named none;
    `claimed` is the account that its session has claimed at the door, as it is new.
    """

    id: str
    key: Key
    method: str
    endpoint: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    body: bytes = field(repr=False)
    model: str = ""
    stream: bool = False
    session: str | None = None
    claimed: int | None = None

    @property
    def retry_count(self) -> int:
        """How often an SDK has repeated this request already; Claude Code always says 0."""
        count = first(self.headers, b"x-stainless-retry-count")
        return int(count) if count.isdigit() and len(count) < 4 else 0

    @property
    def spends_quota(self) -> bool:
        """Tell whether it counts against an account's limits, so that its answer tells of them."""
        return self.endpoint == MESSAGES

    @property
    def is_claude_code(self) -> bool:
        """Tell whether the client says that it is Claude Code."""
        return first(self.headers, b"user-agent").startswith(b"claude-cli/")


class _Body(msgspec.Struct):
    model: str
    stream: Any = False
    metadata: Any = None


_decoder = msgspec.json.Decoder(_Body)


def new_id() -> str:
    """Return a new id for a relayed request."""
    return f"rly_{secrets.token_hex(12)}"


def first(headers: tuple[tuple[bytes, bytes], ...], name: bytes) -> bytes:
    """Return a header's first value, empty when it is absent."""
    # A loop: a request asks a dozen times.
    for given, value in headers:
        if given == name:
            return value
    return b""


def credential(headers: tuple[tuple[bytes, bytes], ...]) -> str:
    """Return the relay key a client sent, by `Authorization: Bearer` or `x-api-key`.

    The same key in both is fine; two different ones are refused, never "the first wins". With an
    `x-relay-key` that is the key, and what the others hold is the client's own.
    """
    if key := key_beside(headers):
        return key.decode("latin-1")
    found = set()
    for name, value in headers:
        if name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() != b"bearer":
                raise ClientAuth
            found.add(rest.strip())
        elif name == b"x-api-key":
            found.add(value.strip())
    if len(found) > 1:
        raise BadRequest("Authorization and x-api-key name two different keys; send one.")
    if not found:
        raise ClientAuth
    return found.pop().decode("latin-1")


def key_beside(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return the relay key that came beside the client's own login; empty: none did."""
    return first(headers, b"x-relay-key").strip()


async def read_body(headers: tuple[tuple[bytes, bytes], ...], receive: Receive) -> bytes:
    """Return the whole body; raise TooLarge (without buffering more), BodyTimeout or ClientGone."""
    if first(headers, b"content-encoding").strip().lower() not in (b"", b"identity"):
        raise Encoding
    length = first(headers, b"content-length")
    # Refused before the first read, so a client that waits for "100 Continue" sends nothing.
    if length.isdigit() and int(length) > LIMIT:
        raise TooLarge
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                piece = message.get("body", b"")
                size += len(piece)
                if size > LIMIT:
                    raise TooLarge
                parts.append(piece)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise BodyTimeout from None


def parse(
    request_id: str,
    key: Key,
    scope: Scope,
    endpoint: str,
    headers: tuple[tuple[bytes, bytes], ...],
    body: bytes,
    *,
    names_model: bool = True,
) -> ClientRequest:
    """Return the request with what the relay needs of its body; raise BadRequest.

    `names_model` tells that the body is one of the Messages API, which must name a model.
    """
    query = scope["query_string"]
    target = (scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1")
    facts = _facts(body) if names_model else _Body(model="")
    user_id = facts.metadata.get("user_id") if isinstance(facts.metadata, dict) else None
    return ClientRequest(
        id=request_id,
        key=key,
        method=scope["method"],
        endpoint=endpoint,
        target=target,
        headers=headers,
        body=body,
        model=facts.model,
        # Counting tokens is never a stream, whatever its body says.
        stream=facts.stream is True and endpoint == MESSAGES,
        session=session_of(_text(headers, SESSION), user_id),
    )


def unread(request_id: str, key: Key, scope: Scope, endpoint: str) -> ClientRequest:
    """Return what is known of a request whose body is not read."""
    headers = tuple(scope["headers"])
    return ClientRequest(
        id=request_id,
        key=key,
        method=scope["method"],
        endpoint=endpoint,
        target="",
        headers=headers,
        body=b"",
        session=session_of(_text(headers, SESSION), None),
    )


def names_session(headers: tuple[tuple[bytes, bytes], ...]) -> bool:
    """Tell whether the head alone says which session it is, or that it is none."""
    return _text(headers, SESSION) is not None


def _facts(body: bytes) -> _Body:
    try:
        facts = _decoder.decode(body)
    except msgspec.ValidationError:
        raise BadRequest("model: a request needs the name of a model.") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadRequest("The request's body is not valid JSON.", code="bad_json") from None
    if not facts.model:
        raise BadRequest("model: a request needs the name of a model.")
    if len(facts.model) > LONGEST_MODEL:
        raise BadRequest(f"model: a name has at most {LONGEST_MODEL} characters.")
    return facts


def _text(headers: tuple[tuple[bytes, bytes], ...], name: bytes) -> str | None:
    value = first(headers, name)
    return value.decode("latin-1") if value else None
