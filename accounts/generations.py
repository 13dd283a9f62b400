"""The generations of a login: stored once, in order, before anything uses them; blocking."""

from __future__ import annotations

import logging
from uuid import UUID

from django.db import Error as DatabaseError
from django.db import transaction
from django.db.models import F, Max

from accounts import parking
from accounts.enrolment import learn
from accounts.models import POOL, Account, Credential
from accounts.parking import Pair
from accounts.renewal import Outcome, Renewal, Wish
from accounts.states import Trigger
from events import journal
from lib import bus

HEALED_BY_A_NEWER_TOKEN = frozenset({"refresh_interrupted", "auth_rejected"})
log = logging.getLogger(__name__)


def newer(account: int, seen: UUID) -> Renewal | None:
    """Return the account's generation if it is another one than `seen`."""
    row = Account.objects.select_related("credential").filter(pk=account).first()
    if row is None or row.credential is None or row.credential_id == seen:
        return None
    return as_renewal(row.credential)


def commit(pair: Pair, wish: Wish, *, late: bool = False) -> Renewal:
    """Store a rotated pair and move the pointer to it, in one transaction; may be repeated.

    If the pointer moved meanwhile (a re-link) the pair is kept under its own grant and the pointer
    stays. Raises django.db.Error when nothing was stored.
    """
    with transaction.atomic():
        # Locks the row, so that no removal or re-link comes in between.
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
        )
        account = row.select_related("credential").get()
        if moved:
            journal.record("account.refreshed", account.subject, by=wish.by, late=late)
            learn(account, pair.answer)
            _heal(account, wish)
            bus.changed(POOL)
    if account.credential is None:
        return Renewal(Outcome.DEAD, why="has no credential")
    return as_renewal(account.credential)


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


def as_renewal(credential: Credential) -> Renewal:
    """Return a stored generation as the outcome of a wish for a newer one."""
    return Renewal(
        Outcome.RENEWED,
        credential=credential.id,
        secret=credential.access_token,
        expires_at=credential.expires_at,
    )


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
