"""The ASGI application: relay, `/health…` and `/metrics` in front, everything else is Django's."""

from __future__ import annotations

import os
from typing import Any, cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proxy_project.settings")

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.core.signals import request_finished
from django.db import connections
from django.dispatch import receiver

django_app = get_asgi_application()

# Django must be set up before anything that uses its models is imported.
from lib import counters  # noqa: E402
from proxy_project import health, metrics  # noqa: E402
from proxy_project.bodies import only_small_bodies  # noqa: E402
from proxy_project.forwarded import only_from_proxies  # noqa: E402
from relay.asgi import App, Receive, Relay  # noqa: E402


def with_health(otherwise: App) -> App:
    """Return the app that answers `/health…` and `/metrics` itself, and tells what it counts."""

    async def app(scope: Any, receive: Receive, send: Any) -> None:
        counters.keep_pushing()
        if scope["raw_path"] in health.PATHS:
            await health.answer(scope, send)
        elif scope["raw_path"] == metrics.PATH:
            await metrics.answer(scope, send)
        else:
            await otherwise(scope, receive, send)

    return app


@receiver(request_finished)
def close_connections(**_: Any) -> None:
    """Close what a request of Django's used: its thread was its own, and nobody comes after it.

    The data plane's threads stay, and keep their connections (lib/db.py).
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


async def no_websocket(scope: Any, receive: Receive, send: Any) -> None:
    """Refuse a websocket: no address takes one."""
    await receive()
    await send({"type": "websocket.close", "code": 4404})


application = ProtocolTypeRouter(
    {
        "http": with_health(Relay(cast(App, only_small_bodies(only_from_proxies(django_app))))),
        "websocket": no_websocket,
    }
)
