"""A grant is one login of an account: how the account takes a new one, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from accounts.models import POOL, Account, Credential
from accounts.states import Kind, Status, Trigger
from events import conditions
from events.models import Condition
from lib import bus

ENDING = "account.grant_ending"
# What Anthropic documents: a login with this scope ends 30 days after it was made, however often
# it is refreshed; a setup token ends after a year.
CAPPED_SCOPE, CAPPED_LIFE = "user:sessions:claude_code", timedelta(days=30)
SETUP_TOKEN_LIFE = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class End:
    """When a login ends; `is_assumed`: nobody said so, it follows from when it was linked."""

    at: datetime
    is_assumed: bool


def end(
    kind: Kind | str, scopes: str, started_at: datetime | None, told: datetime | None
) -> End | None:
    """Return when a login ends that began then; None when it does not, or nobody knows."""
    if told is not None:
        return End(told, is_assumed=False)
    if started_at is None:
        return None
    if kind == Kind.SETUP_TOKEN:
        return End(started_at + SETUP_TOKEN_LIFE, is_assumed=True)
    if kind == Kind.OAUTH and CAPPED_SCOPE in scopes.split():
        return End(started_at + CAPPED_LIFE, is_assumed=True)
    return None


def end_of(account: Account) -> End | None:
    """Return when an account's login ends."""
    return end(account.kind, account.scopes, account.grant_started_at, account.grant_ends_at)


def switch(
    account: Account,
    credential: Credential,
    *,
    by: str,
    now: datetime,
    facts: dict[str, Any],
    **evidence: Any,
) -> bool:
    """Let an account go on with another grant (S12), in the caller's transaction; False: removed.

    `facts` are the columns that change with it.
    """
    # Also ends a refresh of the old grant: whatever it brings home stays with that grant.
    switched = Account.objects.filter(pk=account.pk, deleted_at=None).update(
        credential=credential,
        lease_owner="",
        lease_until=None,
        intent_credential=None,
        refresh_failures=0,
        refresh_not_before=None,
        refresh_gone_at=None,
        **facts,
    )
    if not switched:
        return False
    # Read after the update has locked the row, so that nobody can move it before we do.
    account.refresh_from_db()
    account.apply(
        Trigger.RELINK, by=by, reason=_held(account), now=now, grant=credential.grant, **evidence
    )
    conditions.end(ENDING, account.subject)
    bus.changed(POOL)
    return True


def announce_ends(now: datetime | None = None) -> int:
    """Announce each grant that ends within GRANT_WARNING_DAYS, once; return how many were new."""
    now = now or timezone.now()
    horizon = now + timedelta(days=settings.CONFIG.grant_warning_days)
    rows = Account.objects.filter(deleted_at=None, credential__isnull=False)
    near: set[tuple[str, str]] = set()
    announced = 0
    for account in rows.select_related("credential"):
        ending, credential = end_of(account), account.credential
        if ending is None or ending.at > horizon or credential is None:
            continue
        detail = f"grant {credential.grant}"
        near.add((account.subject, detail))
        if account.status == Status.INVALID:
            continue
        announced += conditions.begin(
            ENDING,
            account.subject,
            detail=detail,
            now=now,
            ends_at=ending.at.isoformat(),
            is_assumed=ending.is_assumed,
            days=max((ending.at - now).days, 0),
        )
    _forget_others(near)
    return announced


def _forget_others(near: set[tuple[str, str]]) -> None:
    """End what was announced of grants that are gone: linked again, removed, or said to last."""
    for subject, detail in Condition.objects.filter(kind=ENDING).values_list("subject", "detail"):
        if (subject, detail) not in near:
            conditions.end(ENDING, subject, detail=detail)


def _held(account: Account) -> str:
    """Keep saying why an account is out of the pool when the new login does not end that."""
    return account.reason if account.status in ("inactive", "rate_limited") else ""
