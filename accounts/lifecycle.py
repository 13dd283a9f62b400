"""What operators and jobs do to an account: enable, disable, try again, remove, recover, bench."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from accounts import health, parking, tokens
from accounts.errors import MoveRefused, TryLater
from accounts.models import POOL, Account, Credential
from accounts.renewal import Outcome, Renewal
from accounts.states import Status, Trigger, is_ahead
from events import journal
from lib import bus


def enable(account: Account, *, by: str, now: datetime | None = None) -> Account:
    """Put a benched account back into the pool (S09); raise MoveRefused or TryLater.

    A token that has ended is refreshed first; if the login turns out dead the account is `invalid`.
    """
    now = now or timezone.now()
    account = _fresh(account)
    if account.status != Status.INACTIVE:
        raise MoveRefused(f"{account.name} is {_words(account)}, not inactive.")
    if (dead := _revived(account, by, now)) is not None:
        with transaction.atomic():
            account.apply(Trigger.ENABLE, by=by, now=now)
            account.apply(Trigger.REJECT, by=by, reason=dead, now=now)
        return account
    account = _fresh(account)
    if not account.apply(Trigger.ENABLE, by=by, now=now):
        raise TryLater(f"{account.name} was changed by somebody else just now. Look again.")
    return account


def disable(account: Account, *, by: str, now: datetime | None = None) -> Account:
    """Take an account out of the pool (S08); what it serves now ends by itself."""
    account = _fresh(account)
    if not account.apply(Trigger.DISABLE, by=by, reason="admin", now=now):
        raise MoveRefused(f"{account.name} is {_words(account)}: there is nothing to disable.")
    return account


def retry(account: Account, *, by: str) -> Account:
    """Try an `invalid` account once more (S14): it returns to the pool if its refresh succeeds.

    A kind without refresh returns as it is; the next answer to it decides. Raises MoveRefused when
    the login is dead, TryLater when that cannot be told now.
    """
    account = _fresh(account)
    if account.status != Status.INVALID:
        raise MoveRefused(f"{account.name} is {_words(account)}, not invalid.")
    renewal = _refresh(account, by=by, is_retry=True)
    if renewal.outcome is Outcome.UNRENEWABLE:
        account.apply(Trigger.RETRY, by=by)
    elif renewal.outcome is not Outcome.RENEWED:
        raise _as_error(account, renewal)
    return _fresh(account)


def refresh(account: Account, *, by: str) -> Account:
    """Renew an account's token now; an `invalid` one is tried again. Raises like `retry`."""
    account = _fresh(account)
    if account.status == Status.INVALID:
        return retry(account, by=by)
    renewal = _refresh(account, by=by)
    if renewal.outcome is not Outcome.RENEWED:
        raise _as_error(account, renewal)
    return _fresh(account)


def remove(account: Account, *, by: str, now: datetime | None = None) -> None:
    """Remove an account (S18): its secrets are destroyed, a nameless row stays for the history.

    Raises TryLater while a refresh is under way: its outcome would be lost.
    """
    now = now or timezone.now()
    account = _fresh(account)
    idle = Q(lease_until=None) | Q(lease_until__lte=now)
    with transaction.atomic():
        removed = Account.objects.filter(idle, pk=account.pk, deleted_at=None).update(
            deleted_at=now,
            credential=None,
            # Frees the name; the number keeps the old one unique.
            name=f"{account.name[:70]} (removed, {account.pk})",
            secret_hash="",
            lease_owner="",
            lease_until=None,
            intent_credential=None,
            state_version=F("state_version") + 1,
        )
        if not removed:
            raise TryLater(f"{account.name} is being refreshed. Try again in a minute.")
        # It may have moved since it was read; now the update has locked it.
        old = Account.objects.values_list("status", flat=True).get(pk=account.pk)
        seen = list(Credential.objects.filter(account=account).values_list("id", flat=True))
        Credential.objects.filter(account=account).delete()
        journal.record("account.removed", account.subject, by=by, old=old)
        bus.changed(POOL)
    _shred_parked(account.pk, seen)


def recover_rate_limited(now: datetime | None = None) -> int:
    """Return the accounts whose limit has passed to `active` (S05); return how many moved."""
    now = now or timezone.now()
    over = Account.objects.filter(
        status=Status.RATE_LIMITED, limited_until__lte=now, deleted_at=None
    )
    return sum(health.recover(pk, by="job", now=now) for pk in over.values_list("pk", flat=True))


def deactivate_idle(now: datetime | None = None) -> int:
    """Bench the accounts that nobody has used for IDLE_AFTER days (S07); return how many.

    Counted from the last use, link or change of state, whichever is the latest; never a pinned one.
    """
    now = now or timezone.now()
    cutoff = now - settings.CONFIG.idle_limit
    idle = Q(pinned=False, created_at__lt=cutoff, status_changed_at__lt=cutoff)
    for name in ("last_used_at", "grant_started_at"):
        idle &= Q(**{name: None}) | Q(**{f"{name}__lt": cutoff})
    rows = Account.objects.filter(idle, status=Status.ACTIVE, deleted_at=None)
    # The guard asks again in the UPDATE: a request may have come meanwhile.
    return sum(
        row.apply(Trigger.IDLE, by="job", reason="idle", guard=idle, now=now) for row in rows
    )


def _revived(account: Account, by: str, now: datetime) -> str | None:
    """Make sure an account has a token that lives; return why not if its login is dead."""
    credential = account.credential
    if credential is None:
        raise MoveRefused(f"{account.name} has no credential. Link it again.")
    if credential.expires_at is None or is_ahead(credential.expires_at, now):
        return None
    renewal = _refresh(account, by=by)
    match renewal.outcome:
        case Outcome.RENEWED:
            return None
        case Outcome.TRY_LATER:
            raise _as_error(account, renewal)
        case Outcome.DEAD | Outcome.UNRENEWABLE:
            return "expired" if renewal.outcome is Outcome.UNRENEWABLE else renewal.why


def _refresh(account: Account, *, by: str, is_retry: bool = False) -> Renewal:
    return async_to_sync(tokens.refresh)(account.pk, by=by, retry=is_retry)


def _as_error(account: Account, renewal: Renewal) -> MoveRefused | TryLater:
    match renewal.outcome:
        case Outcome.DEAD:
            return MoveRefused(
                f"The login of {account.name} is dead ({renewal.why}). Link it again."
            )
        case Outcome.UNRENEWABLE:
            return MoveRefused(f"{account.name} {renewal.why}: there is nothing to refresh.")
        case _:
            return TryLater(f"{account.name} could not be refreshed now: {renewal.why}.")


def _fresh(account: Account) -> Account:
    row = Account.objects.select_related("credential").filter(pk=account.pk, deleted_at=None)
    found = row.first()
    if found is None:
        raise MoveRefused(f"{account.name} was removed.")
    return found


def _words(account: Account) -> str:
    return account.status.replace("_", " ")


def _shred_parked(account: int, seen: list[UUID]) -> None:
    for credential in seen:
        parking.shred(account, credential)
