"""What operators and jobs do to an account: enable, disable, clear, retry, remove, bench."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from uuid import UUID

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from accounts import checks, health, parking, tokens
from accounts.errors import MoveRefused, TryLater
from accounts.models import POOL, Account, Credential, Egress
from accounts.renewal import Outcome, Renewal
from accounts.states import CUT, RESTORED, Status, Trigger, is_ahead
from events import journal
from events.models import Condition
from lib import bus

RETRY_PAUSE = timedelta(seconds=60)
REVOKE_BY_HAND = (
    "Removing it ended nothing at its provider: sign the login out or delete the key there."
)


def enable(account: Account, *, by: str, now: datetime | None = None) -> Account:
    """Put a benched account back into the pool (S09, S11); raise MoveRefused or TryLater.

    A token that has ended is refreshed first, and one from a back-up in any case; if the login
    turns out dead the account is `invalid`.
    """
    now = now or timezone.now()
    account = _fresh(account)
    if account.status != Status.INACTIVE:
        raise MoveRefused(f"{account.name} is {_words(account)}, not inactive.")
    if (dead := _revived(account, by, now)) is not None:
        with transaction.atomic():
            enabled = account.apply(Trigger.ENABLE, by=by, now=now)
            if not (enabled and account.apply(Trigger.REJECT, by=by, reason=dead, now=now)):
                raise _overtaken(account)
        return account
    account = _fresh(account)
    if not account.apply(Trigger.ENABLE, by=by, now=now):
        raise _overtaken(account)
    return account


def disable(
    account: Account, *, by: str, cut: bool = False, now: datetime | None = None
) -> Account:
    """Take an account out of the pool (S08); what it serves now ends by itself, or is `cut`.

    One that is idle is out already; disabled, no request wakes it.
    """
    account = _fresh(account)
    if cut and account.status == Status.INACTIVE and account.reason == "admin":
        return _cut(account, by)
    is_out = account.status == Status.INACTIVE
    reason, guard = CUT if cut and not is_out else "admin", Q(reason="idle") if is_out else None
    if not account.apply(Trigger.DISABLE, by=by, reason=reason, guard=guard, now=now):
        raise MoveRefused(f"{account.name} is {_words(account)}: there is nothing to disable.")
    return account


def clear(account: Account, *, by: str, now: datetime | None = None) -> Account:
    """End an account's limit and cool-down now (S05b), and all that processes hold against it.

    Raises MoveRefused for an account that is out for another reason, or TryLater.
    """
    now = now or timezone.now()
    account = _fresh(account)
    if account.status not in (Status.ACTIVE, Status.RATE_LIMITED):
        raise MoveRefused(f"{account.name} is {_words(account)}: it waits for no limit.")
    is_limited = account.status == Status.RATE_LIMITED
    with transaction.atomic():
        if is_limited and not account.apply(Trigger.RECOVER, by=by, now=now):
            raise _overtaken(account)
        Account.objects.filter(pk=account.pk).update(cooldown_until=None, cleared_at=now)
        journal.record("account.cleared", account.subject, by=by)
        bus.changed(POOL)
    return _fresh(account)


def retry(account: Account, *, by: str, now: datetime | None = None) -> Account:
    """Try an `invalid` account once more (S14): it returns to the pool if its refresh succeeds.

    A kind without refresh returns as it is; the next answer to it decides. Raises MoveRefused when
    the login is dead, TryLater when that cannot be told now, or was tried in the last minute.
    """
    account = _fresh(account)
    if account.status != Status.INVALID:
        raise MoveRefused(f"{account.name} is {_words(account)}, not invalid.")
    _claim_retry(account, now or timezone.now())
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
        Egress.objects.filter(account=account).delete()
        Condition.objects.filter(subject=account.subject).delete()
        journal.record("account.removed", account.subject, by=by, name=account.name, old=old)
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
    lives = credential.expires_at is None or is_ahead(credential.expires_at, now)
    is_restored = account.reason == RESTORED
    if lives and not is_restored:
        return None
    renewal = _refresh(account, by=by)
    match renewal.outcome:
        case Outcome.RENEWED:
            return None
        case Outcome.TRY_LATER:
            raise _as_error(account, renewal)
        case Outcome.UNRENEWABLE if lives:
            return _refused(account, by)
        case Outcome.DEAD | Outcome.UNRENEWABLE:
            return "expired" if renewal.outcome is Outcome.UNRENEWABLE else renewal.why


def _refused(account: Account, by: str) -> str | None:
    """Try a credential that cannot be refreshed; return why not if it is refused (S11)."""
    result = checks.test(account, by=by)
    if result.says_nothing:
        raise TryLater(f"{account.name} could not be checked now: {result.sentence}")
    return "auth_rejected" if result.is_refused else None


def _cut(account: Account, by: str) -> Account:
    """End what an account still serves that was disabled before."""
    row = Account.objects.filter(
        pk=account.pk, status=Status.INACTIVE, state_version=account.state_version, deleted_at=None
    )
    with transaction.atomic():
        if not row.update(reason=CUT):
            raise _overtaken(account)
        journal.record("account.cut", account.subject, by=by)
        bus.changed(POOL)
    return _fresh(account)


def _claim_retry(account: Account, now: datetime) -> None:
    """Claim the one retry of a minute over all who ask; raise TryLater."""
    due = Q(retried_at=None) | Q(retried_at__lte=now - RETRY_PAUSE) | Q(retried_at__gt=now)
    row = Account.objects.filter(pk=account.pk, status=Status.INVALID, deleted_at=None)
    if not row.filter(due).update(retried_at=now):
        tried_at = row.values_list("retried_at", flat=True).first()
        ends = tried_at + RETRY_PAUSE if tried_at else now
        seconds = max(1, math.ceil((ends - now).total_seconds()))
        raise TryLater(f"{account.name} was tried a moment ago. Try again in {seconds} s.")


def _overtaken(account: Account) -> TryLater:
    return TryLater(f"{account.name} was changed by somebody else just now. Look again.")


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
