"""The fields of an event in words, as evidence beside its sentence; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from lib import names

EMPTY: tuple[object, ...] = (None, "", [], {})
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d\S*")
# A state or the name of a field: no sentence has an underscore in it.
NAME = re.compile(r"[a-z]+(_[a-z]+)+(?= \(|$)", re.ASCII)
NOTHING = "nothing"


def say(data: Mapping[str, Any]) -> str:
    """Return what changed first, then all other fields: "active → invalid · status: 401"."""
    rest = dict(data)
    parts: list[str] = []
    if "old" in rest and "new" in rest:
        parts += _changes(rest.pop("old"), rest.pop("new"))
    parts += (f"{_words(name)}: {_words(value)}" for name, value in rest.items() if _says(value))
    return " · ".join(parts)


def _changes(old: Any, new: Any) -> Iterator[str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield f"{_words(old)} → {_words(new)}"
        return
    for name in old | new:
        yield f"{_words(name)}: {_words(old.get(name))} → {_words(new.get(name))}"


def _says(value: object) -> bool:
    return value not in EMPTY


def _words(value: Any) -> str:
    if not _says(value):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if MOMENT.fullmatch(value):
        return _moment(value)
    return NAME.sub(lambda match: match[0].replace("_", " "), names.plain(value), count=1)


def _moment(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%d %b %H:%M} UTC"
    except (ValueError, OverflowError):
        return text
