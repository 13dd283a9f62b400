"""What a receiver gets: plain JSON, the same at every try."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from events import sentences
from events.models import Channel, Event

TEST = "test"
TEST_TEXT = "This is a test alert of Carousel. Nothing is wrong."


def of_event(event: Event, name: str, suppressed: int) -> dict[str, Any]:
    """Return the body for an event; `suppressed` like it were held back before it."""
    data = ({"name": name} if name else {}) | event.data
    said = sentences.say(event.kind, event.subject, data, by=event.by, at=event.at)
    text = f"{said} ({suppressed} more like this were held back.)" if suppressed else said
    known = {"event": event.pk, "subject": event.subject, "by": event.by}
    # What we say of every event wins over what one happens to hold.
    known |= {"text": text, "suppressed": suppressed}
    return _body(event.kind, event.at, data | known)


def of_test(channel: Channel, by: str, now: datetime) -> dict[str, Any]:
    """Return the body of a test alert."""
    known = {"subject": channel.subject, "by": by, "name": channel.name}
    return _body(TEST, now, known | {"text": TEST_TEXT, "suppressed": 0})


def text(body: Any) -> str:
    """Return a stored body as the text that is signed."""
    return json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _body(kind: str, at: datetime, data: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "timestamp": at.isoformat(), "data": data}
