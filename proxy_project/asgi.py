"""The ASGI application: relay paths go to the data plane, everything else to Django."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proxy_project.settings")

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

django_app = get_asgi_application()

from relay.asgi import Relay  # noqa: E402  (Django must be set up first)

application = ProtocolTypeRouter({"http": Relay(otherwise=django_app)})
