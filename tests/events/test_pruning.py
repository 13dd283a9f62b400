"""What happened long ago is forgotten, in small batches."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from events import journal, pruning
from events.models import Channel, Delivery, Event, State
from lib import deletion

pytestmark = pytest.mark.django_db


def test_deliveries_go_after_a_month_and_events_after_400_days(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deletion, "BATCH", 2)
    now = timezone.now()
    channel = Channel.objects.create(name="ops", created_by="ada")
    for days in (0, 29, 31, 31, 31, 399, 401, 401, 401):
        event = journal.record("key.create", "key:1", days=days)
        at = now - timedelta(days=days)
        Event.objects.filter(pk=event.pk).update(at=at, alerted_at=at)
        put(channel, event=event, created_at=at, state=State.DELIVERED)
    put(channel, event=None, created_at=now - timedelta(days=31), state=State.PENDING)

    assert pruning.prune(now) == 8 + 3

    assert Delivery.objects.count() == 2
    assert sorted(event.data["days"] for event in Event.objects.all()) == [0, 29, 31, 31, 31, 399]
    assert pruning.prune(now) == 0


def test_an_event_that_no_rule_was_asked_about_stays() -> None:
    now = timezone.now()
    event = journal.record("key.create", "key:1")
    Event.objects.filter(pk=event.pk).update(at=now - timedelta(days=500))

    assert pruning.prune(now) == 0


def put(channel: Channel, **columns: Any) -> None:
    Delivery.objects.create(
        channel=channel, kind="k", subject="s", body={}, next_at=columns["created_at"], **columns
    )
