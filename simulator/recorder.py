"""Keeps every request as it arrived and how it ended."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from .state import Clock
from .told import Told

# A load test must not eat the machine; `dropped` says when old requests were forgotten.
BODY_BUDGET = 256 * 1024 * 1024


@dataclass(slots=True)
class Entry:
    """One recorded request; times are epoch seconds."""

    n: int
    started_at: float
    method: str
    target: str
    http_version: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    body_bytes: int = 0
    # Of a body that is too large to be kept whole.
    body_sha256: str | None = None
    account: str | None = None
    credential_kind: str | None = None
    status: int | None = None
    ended: str | None = None
    ended_at: float | None = None
    sent_bytes: int = 0
    was_cut: bool = False
    request_id: str = ""
    # What a client of this answer can know of usage; the last whose `at` it got is the truth.
    told: list[Told] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the entry as the control endpoint shows it."""
        return {
            "n": self.n,
            "at": self.started_at,
            "method": self.method,
            "target": self.target,
            "http_version": self.http_version,
            "headers": [list(pair) for pair in self.headers],
            "body_b64": base64.b64encode(self.body).decode(),
            "body_sha256": self.body_sha256 or hashlib.sha256(self.body).hexdigest(),
            "body_bytes": self.body_bytes,
            "account": self.account,
            "credential_kind": self.credential_kind,
            "status": self.status,
            "ended": self.ended,
            "sent_bytes": self.sent_bytes,
            "request_id": self.request_id,
            "told": [told.to_json() for told in self.told],
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "violations": self.violations,
        }

    def contains(self, text: str) -> bool:
        """Tell whether the text occurs in the target, a header or the body."""
        needle = text.encode()
        if text in self.target or needle in self.body:
            return True
        if any(text in name or text in value for name, value in self.headers):
            return True
        return self.body[:2] == b"\x1f\x8b" and needle in _unzipped(self.body)


class Recorder:
    """The list of recorded requests, oldest first."""

    def __init__(self, clock: Clock) -> None:
        self.entries: deque[Entry] = deque()
        self.dropped = 0
        self._clock = clock
        self._count = 0
        self._held = 0

    def open(self, entry: Entry) -> None:
        """Number an entry and add it."""
        self._count += 1
        entry.n = self._count
        self.entries.append(entry)

    def keep_body(self, entry: Entry, body: bytes, received: int) -> None:
        """Store the body; forget the oldest requests when all bodies take too much room."""
        entry.body, entry.body_bytes = body, received
        self._held += len(body)
        while self._held > BODY_BUDGET and len(self.entries) > 1:
            self._held -= len(self.entries.popleft().body)
            self.dropped += 1

    def close(self, entry: Entry, how: str) -> None:
        """Note how and when an exchange ended; the first word counts."""
        if entry.ended is None:
            entry.ended, entry.ended_at = how, self._clock()

    def clear(self) -> None:
        """Forget all requests."""
        self.entries.clear()
        self.dropped = self._held = 0


def _unzipped(body: bytes) -> bytes:
    try:
        return gzip.decompress(body)
    except (OSError, EOFError):
        return b""
