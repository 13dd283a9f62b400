"""Reads what an answer used while its bytes pass; changes nothing and never fails a stream."""

from __future__ import annotations

from typing import Annotated

import msgspec

from relay import sse

# An event is a few KB; a tail beyond this is not one, and is not kept.
LONGEST_TAIL = 64 * 1024
INTERESTING = (b'"usage"', b"message_stop", b"event: error", b"event:error")
LONGEST_WORD = max(map(len, INTERESTING))
ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
# Anything else is no count, and no database would take it.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Usage(msgspec.Struct):
    """Token counts as the API gives them; None is "not said"."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None

    def update(self, newer: Usage) -> None:
        """Take over what `newer` says; counts of a stream are cumulative, not increments."""
        for name in self.__struct_fields__:
            value = getattr(newer, name)
            if value is not None:
                setattr(self, name, value)


class _Message(msgspec.Struct):
    usage: Usage | None = None


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
    """Feeds on the chunks of a stream; tells `usage`, `complete` and the type of an `error`."""

    def __init__(self) -> None:
        self.usage = Usage()
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
            case "message_start" if seen.message and seen.message.usage:
                self.usage.update(seen.message.usage)
            case "message_delta" if seen.usage:
                self.usage.update(seen.usage)
            case "message_stop":
                self.complete = True
            case "error":
                self.error = seen.error.type if seen.error else "api_error"


def usage_of(body: bytes) -> Usage:
    """Return what a whole (non-stream) answer used."""
    try:
        return _message.decode(body).usage or Usage()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Usage()


def _is_interesting(data: bytes) -> bool:
    return any(word in data for word in INTERESTING)
