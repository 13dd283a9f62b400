"""What operators do with channels; each leaves an event, which holds nothing secret."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.utils import timezone

from events import attempts, closing, journal, payload, rulebook
from events.errors import Refused, unique_name
from events.models import Channel, Delivery, Rule
from events.notifiers import NOTIFIERS
from events.notifiers.base import AddressRefused


def create(
    name: str, url: str, *, by: str, kind: str = "webhook", preset: bool = False
) -> tuple[Channel, str]:
    """Make a channel; return it and its signing secret, which is not shown again.

    With `preset`, a rule sends it everything that needs somebody. Blocking: looks the address up.
    Raises Refused.
    """
    _check(kind, url)
    secret = NOTIFIERS[kind].new_secret()
    channel = Channel(name=name, kind=kind, url=url, secret=secret, created_by=by)
    with unique_name(), transaction.atomic():
        channel.save(force_insert=True)
        journal.record("channel.created", channel.subject, by=by, name=name, channel_kind=kind)
        if preset:
            rulebook.create_preset(channel, by=by)
    return channel, secret


def update(channel: Channel, *, by: str, name: str = "", url: str = "") -> None:
    """Change a channel's name, or its address, or both; raise Refused."""
    if url:
        _check(channel.kind, url)
    with unique_name(), transaction.atomic():
        row = _locked(channel)
        old = {"name": row.name}
        row.name = name or row.name
        if url:
            row.url = url
        row.save(update_fields=["name", "url"])
        new = {"name": row.name} | ({"url": "changed"} if url else {})
        journal.record("channel.updated", row.subject, by=by, name=row.name, old=old, new=new)


def renew_secret(channel: Channel, *, by: str) -> str:
    """Give a channel a new signing secret and return it; the old one signs nothing more."""
    secret = NOTIFIERS[channel.kind].new_secret()
    with transaction.atomic():
        row = _locked(channel)
        row.secret = secret
        row.save(update_fields=["secret"])
        journal.record("channel.secret_renewed", row.subject, by=by, name=row.name)
    return secret


def enable(channel: Channel, *, by: str) -> bool:
    """Send alerts to a channel again; False: it was enabled, or is removed."""
    disabled = Channel.objects.filter(pk=channel.pk, removed_at=None, disabled_at__isnull=False)
    with transaction.atomic():
        won = disabled.update(disabled_at=None, disabled_why="")
        if won:
            journal.record("channel.enabled", channel.subject, by=by, name=channel.name)
    return bool(won)


def disable(channel: Channel, *, by: str, now: datetime | None = None) -> bool:
    """Send no more alerts to a channel; what is on its way to it is dropped."""
    return closing.close(channel, by=by, why=f"disabled by {by}"[:100], now=now or timezone.now())


def remove(channel: Channel, *, by: str, now: datetime | None = None) -> bool:
    """Remove a channel with its rules; its address and secret are destroyed, its log stays."""
    here = Channel.objects.filter(pk=channel.pk, removed_at=None)
    with transaction.atomic():
        won = here.update(removed_at=now or timezone.now(), url=None, secret=None)
        if won:
            rules = list(Rule.objects.filter(channel=channel).values_list("name", flat=True))
            Rule.objects.filter(channel=channel).delete()
            closing.drop(channel)
            journal.record(
                "channel.removed", channel.subject, by=by, name=channel.name, rules=rules
            )
    return bool(won)


def test(channel: Channel, *, by: str) -> Delivery:
    """Send one test alert now and return its row, which says what came back."""
    now = timezone.now()
    row = Delivery.objects.create(
        channel=channel,
        kind=payload.TEST,
        subject=channel.subject,
        body=payload.of_test(channel, by, now),
        next_at=now,
        # Claimed from the start: no job may send it too.
        attempts=1,
        claimed_until=now + attempts.CLAIM,
        created_at=now,
    )
    attempts.run([row], now)
    row.refresh_from_db()
    outcome = row.last_error or row.state
    journal.record("channel.tested", channel.subject, by=by, name=channel.name, outcome=outcome)
    return row


def _check(kind: str, url: str) -> None:
    try:
        NOTIFIERS[kind].check(url)
    except AddressRefused as error:
        raise Refused("url", str(error)) from None


def _locked(channel: Channel) -> Channel:
    row = Channel.objects.select_for_update().filter(pk=channel.pk, removed_at=None).first()
    if row is None:
        raise Refused("", f"{channel.name} was removed.")
    return row
