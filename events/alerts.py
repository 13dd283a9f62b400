"""New events become deliveries, and deliveries are sent until they arrive or time is up.

At least once: a delivery is committed together with the mark on its event, and claimed for a minute
before it is sent, so that what a dead worker had begun is sent again, with the same id.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from events import attempts, naming, payload, rules
from events.models import Delivery, Event, Rule, State

SPREAD_AT_ONCE = 500
# Of each channel, so that one that hangs does not hold up the others.
SEND_AT_ONCE = 20


def spread(now: datetime | None = None) -> int:
    """Turn the events that no rule was asked about yet into deliveries; return how many."""
    now = now or timezone.now()
    made = 0
    while Event.objects.filter(alerted_at=None).exists():
        made += _spread_some(now)
    return made


def deliver(now: datetime | None = None) -> int:
    """Send deliveries that are due, some of each channel; return how many arrived."""
    now = now or timezone.now()
    claimed = [row for row in _due(now) if attempts.claim(row, now)]
    return attempts.run(claimed, now)


def _spread_some(now: datetime) -> int:
    with transaction.atomic():
        # The lock of the rules lets one job at a time do this; SQLite's transactions do so anyway.
        open_rules = Rule.objects.filter(
            enabled=True, channel__disabled_at=None, channel__removed_at=None
        )
        asked = list(open_rules.select_related("channel").select_for_update(of=("self",)))
        events = list(Event.objects.filter(alerted_at=None).order_by("id")[:SPREAD_AT_ONCE])
        wanted = [(event, found) for event in events if (found := _matching(asked, event))]
        names = naming.names(event.subject for event, _ in wanted)
        made = sum(_tell(event, found, names, now) for event, found in wanted)
        Event.objects.filter(pk__in=[event.pk for event in events]).update(alerted_at=now)
    return made


def _matching(asked: Sequence[Rule], event: Event) -> list[Rule]:
    return [rule for rule in asked if rules.matches(rule, event) and not _is_echo(rule, event)]


def _is_echo(rule: Rule, event: Event) -> bool:
    """Tell whether a rule would tell a channel of its own failure."""
    return event.kind == attempts.FAILED and event.subject == rule.channel.subject


def _tell(event: Event, found: Sequence[Rule], names: dict[str, str], now: datetime) -> int:
    """Make one delivery per channel, unless all of its rules hold the event back."""
    told = set()
    for rule in found:
        if rule.channel_id in told:
            continue
        last = Delivery.objects.filter(rule=rule, kind=event.kind, subject=event.subject).first()
        if last and rules.is_throttled(last.created_at, now, rule.throttle_seconds):
            Delivery.objects.filter(pk=last.pk).update(held=F("held") + 1)
            continue
        suppressed = last.held if last else 0
        Delivery.objects.create(
            channel_id=rule.channel_id,
            rule=rule,
            event=event,
            kind=event.kind,
            subject=event.subject,
            body=payload.of_event(event, names.get(event.subject, ""), suppressed),
            suppressed=suppressed,
            next_at=now,
            created_at=now,
        )
        told.add(rule.channel_id)
    return len(told)


def _due(now: datetime) -> list[Delivery]:
    due = Delivery.objects.filter(
        attempts.free(now),
        state=State.PENDING,
        next_at__lte=now,
        channel__disabled_at=None,
        channel__removed_at=None,
    )
    channels = due.order_by().values_list("channel", flat=True).distinct()
    rows = due.select_related("channel").order_by("next_at")
    return [row for channel in channels for row in rows.filter(channel=channel)[:SEND_AT_ONCE]]
