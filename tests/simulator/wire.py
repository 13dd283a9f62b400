"""What the relay sends and gets: a client of the messages API and a reader of streams."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx2


@dataclass(frozen=True)
class Api:
    """The simulator's public side, as the relay sees it."""

    client: httpx2.Client
    token: str

    def headers(self, **more: str) -> dict[str, str]:
        return {
            "authorization": f"Bearer {self.token}",
            "anthropic-beta": "oauth-2025-04-20",
            "anthropic-version": "2023-06-01",
            **more,
        }

    def ask(self, text: str = "hi", *, stream: bool = False, **fields: Any) -> httpx2.Response:
        body = {"model": "claude-opus-5-5", "max_tokens": 64, "stream": stream, **fields}
        body.setdefault("messages", [{"role": "user", "content": text}])
        return self.client.post("/v1/messages?beta=true", json=body, headers=self.headers())


def events_of(answer: httpx2.Response) -> list[dict[str, Any]]:
    frames = [part for part in answer.text.split("\n\n") if part]
    events = [json.loads(part.partition("\ndata: ")[2]) for part in frames]
    named = [part.partition("\n")[0] for part in frames]
    assert named == [f"event: {event['type']}" for event in events]
    return events


def text_of(answer: httpx2.Response) -> str:
    deltas = [event.get("delta", {}) for event in events_of(answer)]
    return "".join(delta.get("text", "") for delta in deltas)
