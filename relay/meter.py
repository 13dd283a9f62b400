"""Reads what an answer used while its bytes pass; changes nothing and never fails a stream."""

from __future__ import annotations

import msgspec

from relay import sse

# An event is a few KB; a tail beyond this is not one, and is not kept.
LONGEST_TAIL = 64 * 1024
INTERESTING = (b'"usage"', b"message_stop", b"event: error", b"event:error")


class Usage(msgspec.Struct):
    """Token counts as the API gives them; None is "not said"."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def update(self, newer: Usage) -> None:
        """Take over what `newer` says; counts of a stream are cumulative, not increments."""
        for name in self.__struct_fields__:
            value = getattr(newer, name)
            if value is not None:
                setattr(self, name, value)


class _Message(msgspec.Struct):
    usage: Usage | None = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    usage: Usage | None = None


_event = msgspec.json.Decoder(_Event)
_message = msgspec.json.Decoder(_Message)


class StreamMeter:
    """Feeds on the chunks of a stream; `usage`, `complete` and `error` tell what it saw."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.complete = False
        self.error = False
        self._tail = b""

    def feed(self, chunk: bytes) -> None:
        """Look at one chunk; most hold nothing of interest and cost one search each."""
        self._tail += chunk
        if not any(word in self._tail for word in INTERESTING):
            ends = max(self._tail.rfind(b"\n\n"), self._tail.rfind(b"\r\n\r\n"))
            # Keep the unfinished event, with its separator: a word may be cut in two.
            self._tail = self._tail[max(ends, 0) :][-LONGEST_TAIL:]
            return
        events, rest = sse.split(self._tail)
        for event in events:
            if any(word in event for word in INTERESTING):
                self._read(event)
        self._tail = rest[-LONGEST_TAIL:]

    def _read(self, event: bytes) -> None:
        try:
            seen = _event.decode(sse.data_of(event))
        except (msgspec.DecodeError, RecursionError):
            return
        match seen.type:
            case "message_start" if seen.message and seen.message.usage:
                self.usage.update(seen.message.usage)
            case "message_delta" if seen.usage:
                self.usage.update(seen.usage)
            case "message_stop":
                self.complete = True
            case "error":
                self.error = True


def usage_of(body: bytes) -> Usage:
    """Return what a whole (non-stream) answer used."""
    try:
        return _message.decode(body).usage or Usage()
    except (msgspec.DecodeError, RecursionError):
        return Usage()
