"""When tokens are refreshed ahead of need."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q

from accounts.models import Account
from accounts.renewal import Wish
from accounts.states import Kind, Status
from events.models import Event

EARLIEST, SPREAD = 0.75, 0.10
FAILURES, WITHIN, PAUSE = 5, timedelta(minutes=5), timedelta(seconds=60)


def due(now: datetime) -> list[Wish]:
    """Return what should be refreshed at `now`: past 75 to 85 % of the token's life.

    While the token endpoint fails for everybody, nothing for a minute, then one account as a probe.
    """
    rows = (
        Account.objects.filter(
            Q(refresh_not_before=None) | Q(refresh_not_before__lte=now),
            kind=Kind.OAUTH,
            status__in=(Status.ACTIVE, Status.RATE_LIMITED),
            deleted_at=None,
            credential__refresh_token__isnull=False,
            credential__expires_at__isnull=False,
        )
        .order_by("credential__expires_at")
        .values_list("id", "credential_id", "credential__obtained_at", "credential__expires_at")
    )
    wishes = [
        Wish(account, credential)
        for account, credential, obtained_at, expires_at in rows
        if expires_at and now >= moment(account, obtained_at, expires_at)
    ]
    return wishes[: _allowed(now)]


def moment(account: int, obtained_at: datetime, expires_at: datetime) -> datetime:
    """Return when an account's token is to be refreshed; the spread keeps accounts apart."""
    digest = hashlib.sha256(f"refresh {account}".encode()).digest()
    share = EARLIEST + SPREAD * int.from_bytes(digest[:4], "big") / 2**32
    return obtained_at + (expires_at - obtained_at) * share


def current(account: int) -> UUID | None:
    """Return the id of an account's current generation."""
    row = Account.objects.filter(pk=account, deleted_at=None).only("credential_id").first()
    return row.credential_id if row else None


def _allowed(now: datetime) -> int | None:
    recent = Event.objects.filter(kind="account.refresh_failed", at__gte=now - WITHIN)
    failed = list(recent.order_by("-at").values_list("at", flat=True)[:FAILURES])
    if len(failed) < FAILURES:
        return None
    return 0 if now - failed[0] < PAUSE else 1
