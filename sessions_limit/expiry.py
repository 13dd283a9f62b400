"""The end of sessions in the record, and of the record: the limiter itself needs neither."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from lib.deletion import delete
from sessions_limit import sightings
from sessions_limit.models import ClientSession, Revocation
from sessions_limit.sightings import IDLE

TOO_OLD = "too old"
# What lives is told every ten seconds, and written a second later: three times that.
MARGIN = timedelta(seconds=30)
BATCH, BATCHES = 500, 200


def expire(now: datetime | None = None) -> int:
    """End the sessions that were not seen for too long, or live for too long; return how many.

    Nobody is declared dead while sightings may still be on their way; who is seen again later lives
    on anyway.
    """
    if not sightings.are_written():
        return 0
    now, config = now or timezone.now(), settings.CONFIG
    idle = timedelta(seconds=config.session_idle_seconds)
    longest = timedelta(seconds=config.session_max_seconds)
    is_over = Q(last_seen_at__lt=now - idle - MARGIN) | Q(started_at__lt=now - longest - MARGIN)
    over = ClientSession.objects.filter(is_over, ended_at=None).order_by("uid")
    ended, last = 0, ""
    while rows := list(over.filter(uid__gt=last)[:BATCH]):
        with transaction.atomic():
            ended += sum(_end(row, idle, longest) for row in rows)
        last = rows[-1].uid
    return ended


def prune(now: datetime | None = None) -> int:
    """Delete sessions and revocations that ended RECORD_DAYS ago; return how many went."""
    oldest = (now or timezone.now()) - timedelta(days=settings.CONFIG.record_days)
    sessions = ClientSession.objects.filter(ended_at__lt=oldest)
    revocations = Revocation.objects.filter(until__lt=oldest)
    return delete(sessions, BATCHES) + delete(revocations, BATCHES)


def _end(row: ClientSession, idle: timedelta, longest: timedelta) -> int:
    """End a session when its slot was free, unless it was seen or ended meanwhile."""
    at, why = min((row.last_seen_at + idle, IDLE), (row.started_at + longest, TOO_OLD))
    same = ClientSession.objects.filter(pk=row.pk, ended_at=None, last_seen_at=row.last_seen_at)
    return same.update(ended_at=at, ended=why)
