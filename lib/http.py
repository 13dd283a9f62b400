"""The only builder of the control plane's HTTP clients."""

from __future__ import annotations

from typing import Any

import httpx2

USER_AGENT = "carousel/0.1"
TOTAL_SECONDS = 30.0


def options() -> dict[str, Any]:
    """Return what every control-plane client shares: bounded time, no redirects, own name."""
    return {
        "timeout": httpx2.Timeout(TOTAL_SECONDS, connect=10.0),
        "follow_redirects": False,
        "trust_env": False,
        "headers": {"user-agent": USER_AGENT},
    }


def client(base_url: str = "") -> httpx2.AsyncClient:
    """Return a new client; the caller closes it (`async with`)."""
    return httpx2.AsyncClient(base_url=base_url, **options())
