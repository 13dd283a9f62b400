"""Who may use a refresh token: claim, give back, reject; blocking, settled by the database."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import redis
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from accounts import egress, generations, parking
from accounts.models import Account
from accounts.renewal import Outcome, Renewal, Wish
from accounts.states import Kind, Status, Trigger, is_ahead
from events import journal

LEASE = timedelta(seconds=90)
# A second use of a refresh token may revoke the whole login, so after an unknown outcome the access
# token is first used up to here.
SPARE = timedelta(minutes=10)
RETRY_PAUSE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use a refresh token once.

    `interrupted`: an earlier call with the same token has an unknown outcome.
    """

    account: int
    owner: str
    seen: UUID
    refresh_token: str = field(repr=False)
    proxy: str = field(repr=False)
    expires_at: datetime | None
    interrupted: bool
    failures: int
    gone_at: datetime | None


def claim(wish: Wish) -> Lease | Renewal | None:
    """Claim the one refresh of a generation by one conditional UPDATE.

    Return the lease, or a Renewal if no call is needed or allowed, or None while another holds it.
    """
    now = timezone.now()
    row = Account.objects.select_related("credential").filter(pk=wish.account).first()
    if settled := _settled(row, wish, now):
        return settled
    assert row is not None
    assert row.credential is not None
    if is_ahead(row.lease_until, now):
        return None
    interrupted = row.intent_credential == wish.seen
    if interrupted and (renewal := _interrupted(row, wish, now)):
        return renewal
    if is_ahead(row.refresh_not_before, now):
        return Renewal(Outcome.TRY_LATER, why=f"waits until {row.refresh_not_before:%H:%M:%S} UTC")
    lease = Lease(
        account=wish.account,
        owner=secrets.token_hex(16),
        seen=wish.seen,
        refresh_token=row.credential.refresh_token,
        proxy=egress.of(row),
        expires_at=row.credential.expires_at,
        interrupted=interrupted,
        failures=row.refresh_failures,
        gone_at=row.refresh_gone_at,
    )
    free = Q(lease_until=None) | Q(lease_until__lte=now)
    allowed = Q() if wish.retry else ~Q(status=Status.INVALID)
    won = Account.objects.filter(
        free,
        allowed,
        pk=wish.account,
        deleted_at=None,
        credential_id=wish.seen,
        intent_credential=row.intent_credential,
        refresh_not_before=row.refresh_not_before,
    ).update(lease_owner=lease.owner, lease_until=now + LEASE, intent_credential=wish.seen)
    return lease if won else None


def give_back(
    lease: Lease, until: datetime, *, keep_intent: bool, why: str, **evidence: Any
) -> None:
    """End a lease whose call brought no token; nobody tries again before `until` (S19, S20)."""
    with transaction.atomic():
        held = Account.objects.filter(pk=lease.account, lease_owner=lease.owner)
        given = held.update(
            lease_owner="",
            lease_until=None,
            intent_credential=lease.seen if keep_intent else None,
            refresh_failures=F("refresh_failures") + 1,
            refresh_not_before=until,
            refresh_gone_at=lease.gone_at,
        )
        if given:
            subject = f"account:{lease.account}"
            journal.record(
                "account.refresh_failed",
                subject,
                by="refresh",
                why=why,
                unknown=keep_intent,
                **evidence,
            )


def reject(lease: Lease, reason: str) -> None:
    """End a lease whose login is dead: the account becomes `invalid` (S06)."""
    with transaction.atomic():
        held = Account.objects.filter(pk=lease.account, lease_owner=lease.owner)
        held.update(
            lease_owner="",
            lease_until=None,
            intent_credential=None,
            refresh_not_before=timezone.now() + RETRY_PAUSE,
        )
        account = Account.objects.filter(pk=lease.account).first()
        if account is not None:
            guard = Q(credential_id=lease.seen)
            account.apply(Trigger.REJECT, by="refresh", reason=reason, guard=guard)


def _settled(row: Account | None, wish: Wish, now: datetime) -> Renewal | None:
    if row is None or row.credential is None or row.deleted_at is not None:
        return Renewal(Outcome.DEAD, why="removed")
    if row.status == Status.INVALID and not wish.retry:
        return Renewal(Outcome.DEAD, why=row.reason)
    if row.credential_id != wish.seen:
        return generations.as_renewal(row.credential)
    if row.credential.refresh_token:
        return None
    ended = row.credential.expires_at is not None and row.credential.expires_at <= now
    if row.kind != Kind.OAUTH or not ended:
        return Renewal(Outcome.UNRENEWABLE, why="has no refresh token")
    guard = Q(credential_id=wish.seen)
    row.apply(Trigger.REJECT, by="refresh", reason="expired", guard=guard)
    return Renewal(Outcome.DEAD, why="expired")


def _interrupted(row: Account, wish: Wish, now: datetime) -> Renewal | None:
    """Decide after a call of unknown outcome; None: one more call may be made."""
    try:
        pair = parking.find(wish.account, wish.seen)
    except (redis.RedisError, OSError):
        return Renewal(Outcome.TRY_LATER, why="cannot see whether a new token is parked")
    if pair is not None:
        renewal = generations.commit(pair, wish, late=True)
        parking.forget(pair)
        return renewal
    assert row.credential is not None
    if is_ahead(row.credential.expires_at, now + SPARE) is False or wish.rejected:
        return None
    return Renewal(Outcome.TRY_LATER, why="the outcome of the last refresh is unknown")
