"""Who may use a refresh token: claim, commit, give back; blocking, settled by the database."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import redis
from django.db import Error as DatabaseError
from django.db import transaction
from django.db.models import F, Max, Q
from django.utils import timezone

from accounts import parking
from accounts.enrolment import learn
from accounts.models import POOL, Account, Credential
from accounts.parking import Pair
from accounts.renewal import Outcome, Renewal
from accounts.states import Kind, Status, Trigger, is_ahead
from events import journal
from lib import bus

LEASE = timedelta(seconds=90)
# A second use of a refresh token may revoke the whole login, so after an unknown outcome the access
# token is first used up to here.
SPARE = timedelta(minutes=10)
RETRY_PAUSE = timedelta(seconds=60)
HEALED_BY_A_NEWER_TOKEN = frozenset({"refresh_interrupted", "auth_rejected"})
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """A newer generation than `seen` is wanted.

    `rejected`: the upstream refused `seen`, so its clock says nothing. `retry`: an operator dials
    an `invalid` account once more.
    """

    account: int
    seen: UUID
    rejected: bool = False
    retry: bool = False
    by: str = "refresh"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use a refresh token once.

    `interrupted`: an earlier call with the same token has an unknown outcome.
    """

    account: int
    owner: str
    seen: UUID
    refresh_token: str = field(repr=False)
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


def newer(account: int, seen: UUID) -> Renewal | None:
    """Return the account's generation if it is another one than `seen`."""
    row = Account.objects.select_related("credential").filter(pk=account).first()
    if row is None or row.credential is None or row.credential_id == seen:
        return None
    return _renewed(row.credential)


def commit(pair: Pair, wish: Wish, *, late: bool = False) -> Renewal:
    """Store a rotated pair and move the pointer to it, in one transaction; may be repeated.

    If the pointer moved meanwhile (a re-link) the pair is kept under its own grant and the pointer
    stays. Raises django.db.Error when nothing was stored.
    """
    with transaction.atomic():
        # Locks the row: no removal or re-link in between. Also a first success clears the count.
        row = Account.objects.filter(pk=pair.account, deleted_at=None)
        if not row.update(refresh_failures=0, refresh_not_before=None, refresh_gone_at=None):
            return Renewal(Outcome.DEAD, why="removed")
        _add(pair)
        moved = row.filter(credential_id=pair.seen).update(
            credential_id=pair.id,
            lease_owner="",
            lease_until=None,
            intent_credential=None,
            grant_ends_at=pair.answer.grant_ends_at or F("grant_ends_at"),
            cooldown_until=None,
        )
        account = row.select_related("credential").get()
        if moved:
            journal.record("account.refreshed", account.subject, by=wish.by, late=late)
            learn(account, pair.answer)
            _heal(account, wish)
            bus.changed(POOL)
    if account.credential is None:
        return Renewal(Outcome.DEAD, why="has no credential")
    return _renewed(account.credential)


def give_back(lease: Lease, until: datetime, *, keep_intent: bool, why: str) -> None:
    """End a lease whose call brought no token; nobody tries again before `until`."""
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
                "account.refresh_failed", subject, by="refresh", why=why, unknown=keep_intent
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


def commit_parked() -> int:
    """Commit what lies in Redis from a time when the database was away; return how many."""
    committed = 0
    for pair in parking.everything():
        try:
            commit(pair, Wish(pair.account, pair.seen), late=True)
        except DatabaseError as error:
            name = type(error).__name__
            log.error("store the parked token of account:%d: %s", pair.account, name)
            continue
        parking.forget(pair)
        committed += 1
    return committed


def _settled(row: Account | None, wish: Wish, now: datetime) -> Renewal | None:
    if row is None or row.credential is None or row.deleted_at is not None:
        return Renewal(Outcome.DEAD, why="removed")
    if row.status == Status.INVALID and not wish.retry:
        return Renewal(Outcome.DEAD, why=row.reason)
    if row.credential_id != wish.seen:
        return _renewed(row.credential)
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
        renewal = commit(pair, wish, late=True)
        parking.forget(pair)
        return renewal
    assert row.credential is not None
    if is_ahead(row.credential.expires_at, now + SPARE) is False or wish.rejected:
        return None
    return Renewal(Outcome.TRY_LATER, why="the outcome of the last refresh is unknown")


def _add(pair: Pair) -> None:
    if Credential.objects.filter(pk=pair.id).exists():
        return
    seen = Credential.objects.filter(pk=pair.seen).only("grant").first()
    if seen is None:
        return
    generations = Credential.objects.filter(account_id=pair.account, grant=seen.grant)
    Credential.objects.create(
        id=pair.id,
        account_id=pair.account,
        grant=seen.grant,
        generation=generations.aggregate(last=Max("generation"))["last"] + 1,
        access_token=pair.answer.access_token,
        refresh_token=pair.refresh_token,
        expires_at=pair.answer.expires_at,
        obtained_at=pair.obtained_at,
    )


def _heal(account: Account, wish: Wish) -> None:
    if wish.retry:
        account.apply(Trigger.RETRY, by=wish.by)
    elif account.reason in HEALED_BY_A_NEWER_TOKEN:
        account.apply(Trigger.HEAL, by="refresh")


def _renewed(credential: Credential) -> Renewal:
    return Renewal(
        Outcome.RENEWED,
        credential=credential.id,
        secret=credential.access_token,
        expires_at=credential.expires_at,
    )
