"""The network edge in front of the login endpoints: turns nameless clients away."""

from __future__ import annotations

from .call import Call
from .errors import EdgeRefusal

REFUSAL_PAGE = (
    "<!DOCTYPE html><html><head><title>Access denied</title></head>"
    "<body><h1>Error 1010</h1><p>Access denied.</p></body></html>"
)


def check_edge(call: Call) -> None:
    """Raise EdgeRefusal for a missing User-Agent or Python's default one."""
    agent = call.headers.get("user-agent", "")
    if not agent or agent.startswith("Python-urllib"):
        raise EdgeRefusal
