"""Reads what an answer used while its bytes pass; changes nothing and never fails a stream."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from relay import sse

# An event is a few KB; a tail beyond this is not one, and is not kept.
LONGEST_TAIL = 64 * 1024
INTERESTING = (b'"usage"', b"message_stop", b"event: error", b"event:error")
LONGEST_NAME = 256
LONGEST_WHOLE = 8 * 1024 * 1024
LONGEST_WORD = max(map(len, INTERESTING))
STREAM = re.compile(rb"\s*(?:event|data|id|retry)?:")
ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
# Anything else is no count, and no database would take it, or the sum of many.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Usage(msgspec.Struct):
    """Token counts and terms as the API gives them; None is "not said".

    `iterations` are the parts of an answer that took several models or compactions; a compaction is
    billed and not in the totals. What is odd in a part without a fixed type is read as not said by
    `spent`, so that it never costs the counts beside it.
    """

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: Any = None
    server_tool_use: Any = None
    output_tokens_details: Any = None
    service_tier: Any = None
    speed: Any = None
    inference_geo: Any = None
    iterations: Any = None

    def update(self, newer: Usage) -> None:
        """Take over what `newer` says; counts of a stream are cumulative, not increments."""
        for name in self.__struct_fields__:
            value = getattr(newer, name)
            if value is not None:
                setattr(self, name, value)


class _Message(msgspec.Struct):
    usage: Usage | None = None
    model: Any = None


class _Error(msgspec.Struct):
    type: str = "api_error"


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    usage: Usage | None = None
    error: _Error | None = None


_event = msgspec.json.Decoder(_Event)
_message = msgspec.json.Decoder(_Message)


class StreamMeter:
    """Feeds on the chunks of a stream; tells `usage`, the `model` that answers, `complete` and the
    type of an `error`."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.model = ""
        self.complete = False
        self.error = ""
        self._tail = b""
        self._found = False

    def feed(self, chunk: bytes) -> None:
        """Look at one chunk; most hold nothing of interest and cost one search each."""
        # Only what is new is searched, and a little before it: a word may be cut in two.
        known = max(0, len(self._tail) - LONGEST_WORD)
        self._tail += chunk
        new = self._tail[known:]
        self._found = self._found or _is_interesting(new)
        end = max((new.rfind(mark) + len(mark) for mark in ENDS if mark in new), default=0)
        if not end or not self._found:
            self._tail = (new[end:] if end else self._tail)[-LONGEST_TAIL:]
            return
        events, rest = sse.split(self._tail)
        for event in events:
            if _is_interesting(event):
                self._read(event)
        self._tail, self._found = rest[-LONGEST_TAIL:], _is_interesting(rest)

    def _read(self, event: bytes) -> None:
        try:
            seen = _event.decode(sse.data_of(event))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return
        match seen.type:
            case "message_start" if seen.message:
                self.model = _name(seen.message.model)
                self.usage.update(seen.message.usage or Usage())
            case "message_delta" if seen.usage:
                self.usage.update(seen.usage)
            case "message_stop":
                self.complete = True
            case "error":
                self.error = seen.error.type if seen.error else "api_error"


class Kept:
    """A long answer that is no stream, kept while it passes: what it used stands at its end.

    One that is longer than the API can make is not kept.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._size = 0

    @property
    def body(self) -> bytes:
        """The whole of it."""
        return b"".join(self.pieces)

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self._size += len(piece)
        if self._size > LONGEST_WHOLE:
            self.pieces.clear()
        else:
            self.pieces.append(piece)


def read_whole(body: bytes) -> tuple[Usage, str]:
    """Return what a whole answer used, and the model that gave it.

    It may be a stream that came as a whole: so does one that is compressed against our wish.
    """
    if STREAM.match(body):
        meter = StreamMeter()
        meter.feed(body)
        return meter.usage, meter.model
    try:
        message = _message.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Usage(), ""
    return message.usage or Usage(), _name(message.model)


def _name(model: object) -> str:
    return model[:LONGEST_NAME] if isinstance(model, str) else ""


def _is_interesting(data: bytes) -> bool:
    return any(word in data for word in INTERESTING)
