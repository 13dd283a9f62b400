"""What a proxy says of its client counts only if the proxy is one of TRUSTED_PROXIES."""

from __future__ import annotations

from typing import Any

from lib.peer import is_trusted

FORWARDED = (b"forwarded", b"x-forwarded-", b"x-real-ip")


def only_from_proxies(application: Any) -> Any:
    """Return the app; from any other peer the forwarding headers are taken out before it looks."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not is_trusted(scope.get("client")):
            kept = [item for item in scope["headers"] if not item[0].startswith(FORWARDED)]
            scope = scope | {"headers": kept}
        await application(scope, receive, send)

    return app
