"""Reads the JSON of Claude's login endpoints, which may hold anything."""

from __future__ import annotations

import json
from typing import Any

import httpx2

LONGEST_TEXT = 254
LARGEST = 256 * 1024


def parse(response: httpx2.Response) -> dict[str, Any]:
    """Return the object of an answer; empty when it is none."""
    return _object(response.content) or {}


async def read(response: httpx2.Response) -> dict[str, Any] | None:
    """Return the object of an answer as it comes; None when it is none, or larger than any is."""
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > LARGEST:
            return None
    return _object(body)


def part(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object inside an object; empty when it is none."""
    inner = data.get(name)
    return inner if isinstance(inner, dict) else {}


def text(value: object, limit: int = LONGEST_TEXT) -> str:
    """Return a text that can be shown and stored; empty when it is none."""
    if not isinstance(value, str):
        return ""
    return "".join(char for char in value if char.isprintable())[:limit]


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        # Python refuses to read a number of thousands of digits; what is beside it still counts.
        data = json.loads(body, parse_int=lambda text: int(text[:20]))
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
