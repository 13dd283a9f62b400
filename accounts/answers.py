"""Reads the JSON of Claude's login endpoints, which may hold anything."""

from __future__ import annotations

import json
from typing import Any

import httpx2

LONGEST_TEXT = 254


def parse(response: httpx2.Response) -> dict[str, Any]:
    """Return the object of an answer; empty when it is none."""
    try:
        # Python refuses to read a number of thousands of digits; the token beside it still counts.
        data = json.loads(response.content, parse_int=lambda text: int(text[:20]))
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def part(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object inside an object; empty when it is none."""
    inner = data.get(name)
    return inner if isinstance(inner, dict) else {}


def text(value: object, limit: int = LONGEST_TEXT) -> str:
    """Return a text that can be shown and stored; empty when it is none."""
    if not isinstance(value, str):
        return ""
    return "".join(char for char in value if char.isprintable())[:limit]
