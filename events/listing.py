"""What the console says about channels, rules and deliveries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from events.models import Channel, Delivery, Rule, State
from lib.crypto import DecryptError

LOG = 100
TONES = {
    State.PENDING: "rate_limited",
    State.DELIVERED: "active",
    State.FAILED: "invalid",
    State.DROPPED: "inactive",
}


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel as the list shows it; of its address only the host."""

    channel: Channel
    host: str


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery as the log shows it; `tone` is one of the badges' names."""

    delivery: Delivery
    text: str
    tone: str

    @property
    def is_pending(self) -> bool:
        """Whether it will be tried again."""
        return self.delivery.state == State.PENDING


def channels() -> list[ChannelRow]:
    """Return the channels that were not removed."""
    rows: Iterable[Channel] = Channel.objects.filter(removed_at=None)
    return [ChannelRow(row, host(row)) for row in rows]


def rules() -> list[Rule]:
    """Return all rules with their channels."""
    return list(Rule.objects.select_related("channel"))


def log(size: int = LOG) -> list[DeliveryRow]:
    """Return the last deliveries, newest first."""
    rows = Delivery.objects.select_related("channel", "rule")[:size]
    return [DeliveryRow(row, _text(row), TONES[State(row.state)]) for row in rows]


def host(channel: Channel) -> str:
    """Return where a channel leads, without what may be a token."""
    try:
        return urlsplit(channel.url or "").netloc
    except DecryptError:
        return "cannot be opened"


def _text(row: Delivery) -> str:
    data = row.body.get("data", {}) if isinstance(row.body, dict) else {}
    return str(data.get("text", ""))
