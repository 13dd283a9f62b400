"""One try to send a delivery: claimed by one worker, sent, and its outcome written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q

from events import closing, journal, payload
from events.models import Delivery, State
from events.notifiers import NOTIFIERS
from events.notifiers.base import Message, Outcome, Result
from lib import counters
from lib.backoff import Policy
from lib.crypto import DecryptError

FAILED = "alert.failed"
# Longer than a try can take; then the worker that claimed it is taken for dead.
CLAIM = timedelta(minutes=1)
PATIENCE = timedelta(hours=24)
POLICIES = {
    Result.RATE_LIMITED: "backoff_rate_limited",
    Result.REFUSED: "backoff_server_error",
    Result.LOST: "backoff_timeout",
}
SEALED = Outcome(Result.LOST, error="the channel's secrets cannot be opened")


def free(now: datetime) -> Q:
    """Return the condition on a delivery that no living worker has claimed."""
    return Q(claimed_until=None) | Q(claimed_until__lte=now)


def claim(row: Delivery, now: datetime) -> bool:
    """Claim a delivery for one try; False: another worker has it."""
    until = now + CLAIM
    mine = Delivery.objects.filter(
        free(now), pk=row.pk, state=State.PENDING, attempts=row.attempts, next_at__lte=now
    )
    if not mine.update(claimed_until=until, attempts=F("attempts") + 1):
        return False
    row.claimed_until, row.attempts = until, row.attempts + 1
    return True


def run(claimed: Sequence[Delivery], now: datetime) -> int:
    """Send claimed deliveries, all at once, and write what came of it; return how many arrived."""
    if not claimed:
        return 0
    # Opened before the event loop begins: the ORM may not be used inside.
    messages = [(row.channel.kind, _message(row)) for row in claimed]
    outcomes = async_to_sync(_send_all)(messages)
    return sum(settle(row, outcome, now) for row, outcome in zip(claimed, outcomes, strict=True))


def settle(row: Delivery, outcome: Outcome, now: datetime) -> bool:
    """Write what came of a try, unless its claim was lost meanwhile; return whether it arrived."""
    mine = Delivery.objects.filter(
        pk=row.pk, state=State.PENDING, attempts=row.attempts, claimed_until=row.claimed_until
    )
    row.last_status, row.last_error, row.claimed_until = outcome.status, outcome.error[:100], None
    seen = {"last_status": row.last_status, "last_error": row.last_error, "claimed_until": None}
    if outcome.is_delivered:
        counters.add("job_calls", "webhook", "succeeded")
        return bool(mine.update(state=State.DELIVERED, delivered_at=now, **seen))
    if not _is_over(row, outcome, now):
        next_at = _next(row, outcome, now)
        counters.add("job_calls", "webhook", "later")
        counters.add("backoff_seconds", "webhook", by=(next_at - now).total_seconds())
        mine.update(next_at=next_at, **seen)
        return False
    counters.add("job_calls", "webhook", "failed")
    with transaction.atomic():
        if mine.update(state=State.FAILED, **seen):
            _give_up(row, outcome, now)
    return False


async def _send_all(messages: Sequence[tuple[str, Message | None]]) -> list[Outcome]:
    return list(await asyncio.gather(*(_send(kind, message) for kind, message in messages)))


async def _send(kind: str, message: Message | None) -> Outcome:
    return SEALED if message is None else await NOTIFIERS[kind].send(message)


def _message(row: Delivery) -> Message | None:
    channel = row.channel
    try:
        url, secret = channel.url, channel.secret
    except DecryptError:
        return None
    return Message(str(row.pk), url, secret, payload.text(row.body)) if url and secret else None


def _is_over(row: Delivery, outcome: Outcome, now: datetime) -> bool:
    is_spent = now - row.created_at >= PATIENCE
    return is_spent or outcome.result is Result.GONE or row.kind == payload.TEST


def _next(row: Delivery, outcome: Outcome, now: datetime) -> datetime:
    policy = Policy(*getattr(settings.CONFIG, POLICIES[outcome.result]))
    wait = timedelta(seconds=policy.wait(row.attempts, at_least=outcome.retry_after))
    # The last try is made in time, whatever the receiver asks for.
    return min(now + wait, row.created_at + PATIENCE)


def _give_up(row: Delivery, outcome: Outcome, now: datetime) -> None:
    if outcome.result is Result.GONE:
        closing.close(row.channel, by="alerts", why="it answered 410 (gone)", now=now)
    # The failure of a word about a failure is in the log of deliveries only: no echo of echoes.
    if row.kind in (FAILED, payload.TEST):
        return
    journal.record(
        FAILED,
        row.channel.subject,
        by="alerts",
        name=row.channel.name,
        delivery=str(row.pk),
        kind_lost=row.kind,
        subject_lost=row.subject,
        attempts=row.attempts,
        status=outcome.status,
        error=row.last_error,
    )
