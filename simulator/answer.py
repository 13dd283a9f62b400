"""What an endpoint gives back, before faults are put on top of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .clock import http_date


@dataclass(slots=True)
class Answer:
    """A status, headers, and one body, a list of server-sent event frames, or a body in pieces.

    `length` announces the size of a body in pieces; without it the body is chunked.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    events: list[bytes] | None = None
    pieces: Iterator[bytes] | None = None
    length: int | None = None


def json_answer(status: int, value: Any, headers: dict[str, str] | None = None) -> Answer:
    """Return a JSON answer."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Answer(status, {"content-type": "application/json", **(headers or {})}, body)


def text_answer(status: int, text: str) -> Answer:
    """Return a text answer, or HTML when the text begins like it."""
    kind = "text/html" if text.lstrip().startswith("<") else "text/plain"
    return Answer(status, {"content-type": f"{kind}; charset=utf-8"}, text.encode())


def new_request_id() -> str:
    """Return a fresh id like `req_011C...`."""
    return "req_011C" + secrets.token_hex(10)


def base_headers(request_id: str, organization: str | None, now: float) -> dict[str, str]:
    """Return the headers that every answer of the real API carries."""
    headers = {
        "date": http_date(now),
        "request-id": request_id,
        "server": "cloudflare",
        "cf-ray": f"{secrets.token_hex(8)}-AMS",
        "set-cookie": f"_cfuvid={secrets.token_hex(8)}; HttpOnly; SameSite=None; Secure; Path=/",
    }
    if organization is not None:
        headers["anthropic-organization-id"] = organization
    return headers
