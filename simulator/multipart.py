"""Reads a multipart upload as it comes and keeps no more of it than its first megabyte."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

KEPT = 1024 * 1024
LONGEST_HEAD = 16 * 1024
BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
NAME = re.compile(rb'name="([^"]*)"')
FILENAME = re.compile(rb'filename="([^"]*)"')
TYPE = re.compile(rb"^content-type: *([^\r\n]+)", re.IGNORECASE | re.MULTILINE)


@dataclass(slots=True)
class Part:
    """One part: what its head says, its size and hash, and its first bytes."""

    name: str = ""
    filename: str | None = None
    mime_type: str = "application/octet-stream"
    size: int = 0
    start: bytearray = field(default_factory=bytearray)
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self.size += len(data)
        self.hash.update(data)
        self.start += data[: KEPT - len(self.start)]


class Multipart:
    """Feeds on the pieces of a body; `parts` are those that began, `is_whole` tells of its end."""

    def __init__(self, content_type: str) -> None:
        found = BOUNDARY.search(content_type)
        self._border = b"\r\n--" + (found[1] if found else "?").encode()
        # The first border has no line before it.
        self._rest = b"\r\n"
        self._part: Part | None = None
        self.parts: list[Part] = []
        self.is_whole = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        self._rest += data
        while not self.is_whole and (self._read_data() if self._part else self._read_head()):
            pass

    def _read_data(self) -> bool:
        assert self._part is not None
        end = self._rest.find(self._border)
        if end < 0:
            sure = max(0, len(self._rest) - len(self._border))
            self._part.add(self._rest[:sure])
            self._rest = self._rest[sure:]
            return False
        self._part.add(self._rest[:end])
        self._rest, self._part = self._rest[end:], None
        return True

    def _read_head(self) -> bool:
        start = self._rest.find(self._border)
        after = start + len(self._border)
        if start >= 0 and self._rest[after : after + 2] == b"--":
            self.is_whole = True
            return False
        end = self._rest.find(b"\r\n\r\n", max(0, after))
        if start < 0 or end < 0:
            self._rest = self._rest[-LONGEST_HEAD:]
            return False
        head, self._rest = self._rest[after:end], self._rest[end + 4 :]
        self._part = _part(head)
        self.parts.append(self._part)
        return True


def _part(head: bytes) -> Part:
    name, filename, kind = NAME.search(head), FILENAME.search(head), TYPE.search(head)
    part = Part(name=name[1].decode() if name else "")
    part.filename = filename[1].decode() if filename else None
    if kind:
        part.mime_type = kind[1].decode().strip()
    return part
