"""What an answer tells its client that it used, and how much of it a client must have for that."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

EVENTS = (b"event: message_start", b"event: message_delta")


@dataclass(frozen=True, slots=True)
class Told:
    """The usage as it stands from byte `at` of the body on; of a stream, all of it so far."""

    at: int
    model: str
    usage: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as the control endpoint shows it."""
        return asdict(self)


def by_body(body: bytes) -> list[Told]:
    """Return what a whole answer tells, which is all or nothing."""
    message = _object(body) if b'"usage"' in body else {}
    if not isinstance(message.get("usage"), dict):
        return []
    return [Told(len(body), str(message.get("model")), message["usage"])]


def by_event(chunk: bytes, at: int, before: list[Told]) -> list[Told]:
    """Return what an event of a stream tells, on top of what was told before."""
    if not chunk.startswith(EVENTS):
        return []
    event = _object(chunk.partition(b"data: ")[2])
    match event.get("type"):
        case "message_start":
            return [Told(at, event["message"]["model"], event["message"]["usage"])]
        case "message_delta":
            return [Told(at, last.model, last.usage | event["usage"]) for last in before[-1:]]
        case _:
            return []


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
