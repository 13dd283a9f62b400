"""Just enough of server-sent events: where one ends, and what it is called."""

from __future__ import annotations

import re
from collections.abc import Iterator

END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
LINE = re.compile(rb"\r\n|\n|\r")


def split(buffer: bytes) -> tuple[list[bytes], bytes]:
    """Return the complete events at the head of `buffer`, each with its end, and what is left."""
    events, start = [], 0
    for end in END.finditer(buffer):
        events.append(buffer[start : end.end()])
        start = end.end()
    return events, buffer[start:]


def name_of(event: bytes) -> bytes:
    """Return an event's name; empty for a comment or one without a name."""
    return next(_fields(event, b"event"), b"")


def data_of(event: bytes) -> bytes:
    """Return an event's data, its lines joined."""
    return b"\n".join(_fields(event, b"data"))


def _fields(event: bytes, wanted: bytes) -> Iterator[bytes]:
    for line in LINE.split(event):
        name, _, value = line.partition(b":")
        if name == wanted:
            yield value.removeprefix(b" ")
