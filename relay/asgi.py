"""Placeholder until the relay lands."""

from __future__ import annotations


class Relay:
    def __init__(self, otherwise): self.otherwise = otherwise
    async def __call__(self, scope, receive, send):
        if scope["path"] == "/health":
            await send({"type": "http.response.start", "status": 200, "headers": []}); await send({"type": "http.response.body", "body": b"{}"}); return
        await self.otherwise(scope, receive, send)
