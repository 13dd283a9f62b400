"""An upstream's answer, read just far enough to be judged, and not a byte further."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from providers.base import Limits, Provider
from relay import sse
from relay.facts import Facts
from relay.upstream.base import Headers, Lost, Response

LONGEST_HEAD = 64 * 1024
LONGEST_WHOLE = 1024 * 1024
LONGEST_UNPACKED = 8 * 1024 * 1024
# What an error says beyond its head is not worth a longer wait.
REFUSAL_SECONDS = 10.0
LONGEST_ID = 128
STATUS_OF = {"overloaded_error": 529, "rate_limit_error": 429}


@dataclass(slots=True)
class Answer:
    """An answer that has not been shown to the client yet.

    `head` is what was read of its body; `ended` tells that this is all of it, `cut` that the
    connection broke behind it, `is_raw` that its bytes are no answer of the API but a file,
    `own_login` that it speaks of the client's own account and not of one of the pool.
    """

    response: Response
    limits: Limits
    head: bytes = field(default=b"", repr=False)
    is_stream: bool = False
    is_raw: bool = False
    own_login: bool = False
    ended: bool = False
    cut: bool = False
    error_status: int = 0
    on_close: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def status(self) -> int:
        """The HTTP status to show."""
        return self.error_status or self.response.status

    @property
    def headers(self) -> Headers:
        """The headers to choose from."""
        if not self.error_status:
            return self.response.headers
        kept = [item for item in self.response.headers if item[0].lower() == b"request-id"]
        return [*kept, (b"content-type", b"application/json")]

    @property
    def request_id(self) -> str:
        """The upstream's name for the request; empty if it gave none that can be written down."""
        found = (value for name, value in self.response.headers if name.lower() == b"request-id")
        name = next(found, b"").decode("latin-1")
        return name if name.isascii() and name.isprintable() and len(name) <= LONGEST_ID else ""

    def unpacked(self, body: bytes) -> bytes:
        """Return the text of what came of the body, to be looked at; the client gets it as is."""
        found = (value for name, value in self.headers if name.lower() == b"content-encoding")
        return _unpacked(body, next(found, b"").decode("latin-1"))

    def as_error(self, event: str) -> Answer:
        """Turn a stream that began with an error event into the plain answer that it should be."""
        events, _ = sse.split(self.head)
        error = next(item for item in events if sse.name_of(item) == b"error")
        self.close()
        self.head, self.is_stream, self.ended = sse.data_of(error), False, True
        self.error_status = STATUS_OF.get(event, 500)
        return self

    def close(self) -> None:
        """Close the connection, or give it back if the answer was read to its end."""
        self.response.close()
        if self.on_close is not None:
            self.on_close()
            self.on_close = None


class _Error(msgspec.Struct):
    type: str = ""
    message: str = ""
    details: object = None


class _ErrorBody(msgspec.Struct):
    error: _Error | None = None
    request_id: str | None = None


_error_body = msgspec.json.Decoder(_ErrorBody)


async def read(
    response: Response, provider: Provider, wants_stream: bool, now: datetime
) -> tuple[Answer, Facts]:
    """Read a stream to its first event, anything else to its end (or 1 MiB); raise Lost.

    Lost is raised only while the answer is still worthless: before a stream's first event, or
    within a body that was to be read whole.
    """
    headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
    answer = Answer(response, provider.limits(headers, now))
    kind = headers.get("content-type", "")
    coding = headers.get("content-encoding", "identity").strip().lower()
    if response.status != 200:
        await _read_refusal(answer)
        return answer, _refusal(answer, kind, headers, provider)
    if coding not in ("", "identity"):
        await _read_whole(answer)
        return answer, _refusal(answer, kind, headers, provider)
    if kind.startswith("text/event-stream"):
        answer.is_stream = True
        return answer, await _read_first_event(answer, provider)
    await _read_whole(answer)
    return answer, Facts(
        status=200,
        malformed=wants_stream or not kind.startswith("application/json"),
        ended_early=answer.ended and not answer.head,
        limits=answer.limits,
    )


async def read_raw(
    response: Response, provider: Provider, wants_stream: bool, now: datetime
) -> tuple[Answer, Facts]:
    """Read a refusal whole and of anything else the first bytes, whatever they are; raise Lost."""
    if response.status != 200:
        return await read(response, provider, wants_stream, now)
    headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
    answer = Answer(response, provider.limits(headers, now), is_raw=True)
    answer.head = await response.read()
    answer.ended = not answer.head
    return answer, Facts(status=200, limits=answer.limits)


async def _read_first_event(answer: Answer, provider: Provider) -> Facts:
    while True:
        events, _ = sse.split(answer.head)
        for event in events:
            name = sse.name_of(event)
            if name != b"ping" and (name or sse.data_of(event)):
                error = _decode(sse.data_of(event)) if name == b"error" else None
                return Facts(
                    status=200,
                    event=((error and error.type) or "api_error") if name == b"error" else "",
                    message=(error.message if error else "").lower(),
                    can_refresh=provider.can_refresh,
                    limits=answer.limits,
                )
        if len(answer.head) > LONGEST_HEAD:
            return Facts(status=200, malformed=True, limits=answer.limits)
        piece = await answer.response.read()
        if not piece:
            return Facts(status=200, ended_early=True, limits=answer.limits)
        answer.head += piece


async def _read_refusal(answer: Answer) -> None:
    """Read what comes: of a refusal, the head alone says what is to be done."""
    try:
        async with asyncio.timeout(REFUSAL_SECONDS):
            await _read_whole(answer)
    except (Lost, TimeoutError):
        answer.cut = answer.ended = True


async def _read_whole(answer: Answer) -> None:
    parts, size = [], 0
    try:
        while size < LONGEST_WHOLE and not answer.ended:
            piece = await answer.response.read()
            parts.append(piece)
            size += len(piece)
            answer.ended = not piece
    finally:
        answer.head = b"".join(parts)


def _refusal(answer: Answer, kind: str, headers: Mapping[str, str], provider: Provider) -> Facts:
    text = answer.unpacked(answer.head)
    error = _decode(text)
    details = error.details if error and isinstance(error.details, dict) else {}
    is_json: bool | None = None
    if answer.head:
        is_json = not kind.startswith("text/html")
    return Facts(
        status=answer.status,
        error=error.type if error else "",
        code=str(details.get("error_code", "")),
        message=(error.message if error else text[:2000].decode("utf-8", "replace")).lower(),
        is_json=is_json,
        has_id="request-id" in headers or b'"request_id"' in text,
        can_refresh=provider.can_refresh,
        limits=answer.limits,
    )


def _unpacked(body: bytes, coding: str) -> bytes:
    if coding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, LONGEST_UNPACKED)
    except zlib.error:
        return body


def _decode(data: bytes) -> _Error | None:
    try:
        return _error_body.decode(data).error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
