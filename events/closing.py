"""Stop sending to a channel."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from events import journal
from events.models import Channel, Delivery, State


def close(channel: Channel, *, by: str, why: str, now: datetime) -> bool:
    """Disable a channel and drop what is on its way to it; False: it was disabled already."""
    with transaction.atomic():
        won = Channel.objects.filter(pk=channel.pk, disabled_at=None, removed_at=None).update(
            disabled_at=now, disabled_why=why
        )
        if won:
            drop(channel)
            journal.record("channel.disabled", channel.subject, by=by, name=channel.name, why=why)
    return bool(won)


def drop(channel: Channel) -> None:
    """Give up what waits for a channel."""
    waiting = Delivery.objects.filter(channel=channel, state=State.PENDING)
    waiting.update(state=State.DROPPED, claimed_until=None)
