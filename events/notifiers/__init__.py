"""How alerts are sent: one file per kind of channel."""

from __future__ import annotations

from events.notifiers.base import Notifier
from events.notifiers.webhook import Webhook

NOTIFIERS: dict[str, Notifier] = {"webhook": Webhook()}
