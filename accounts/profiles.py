"""Asks once a day whose login each account is, and writes down what has changed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.utils import timezone

from accounts import egress, health, profile_endpoint, waits
from accounts.merging import unite
from accounts.models import POOL, Account
from accounts.profile_endpoint import (
    OrganizationRefused,
    Profile,
    ProfileForbidden,
    ProfileUnreadable,
)
from accounts.states import Kind, Status
from events import journal
from lib import bus, counters
from lib.crypto import DecryptError
from lib.db import in_thread

EVERY, SPREAD = timedelta(hours=24), timedelta(hours=4)
# A token that ends sooner is about to be refreshed; the next tick asks with the new one.
SPARE = timedelta(minutes=1)
# For as long nobody else asks; longer than any call takes.
CLAIM = timedelta(minutes=5)
AT_ONCE = 4
BY = "profile"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to ask for one account's profile now."""

    account: int
    secret: str = field(repr=False)
    proxy: str = field(repr=False)
    failures: int


async def check_due(now: datetime | None = None) -> int:
    """Read the profiles that are due, each in one process only; return how many were read."""
    now = now or timezone.now()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(account: int) -> bool:
        async with gate:
            return await _check(account, now)

    due = await in_thread(_due, now)
    # One account's trouble must not end the others' calls half-way.
    ended = await asyncio.gather(*map(one, due), return_exceptions=True)
    for account, end in zip(due, ended, strict=True):
        if isinstance(end, BaseException):
            log.error("check account:%d: %s", account, type(end).__name__, exc_info=end)
    return sum(end is True for end in ended)


def learn(account: int, profile: Profile, *, now: datetime) -> bool:
    """Write down whose login an account is; False: not now, ask again.

    An account that turns out to be one that is linked already is merged with it.
    """
    try:
        with transaction.atomic():
            row = Account.objects.get(pk=account)
            if row.account_uuid not in ("", profile.account_uuid):
                log.error("check account:%d: its token tells of another account", account)
                return _settle(account, now)
            organization = profile.organization_uuid or row.organization_uuid
            left = unite(account, profile.account_uuid, organization, by=BY, now=now)
            if left is None:
                return False
            _write(left, profile, now)
    except IntegrityError:
        # Another process wrote the same identity into another row just now: they will be merged.
        return False
    return True


def _due(now: datetime) -> list[int]:
    rows = Account.objects.filter(
        # What lies a day ahead was written before the clock was set back.
        Q(profile_checked_at=None)
        | Q(profile_checked_at__lte=now - EVERY)
        | Q(profile_checked_at__gt=now + EVERY),
        Q(profile_not_before=None)
        | Q(profile_not_before__lte=now)
        | Q(profile_not_before__gt=now + EVERY),
        Q(credential__expires_at=None) | Q(credential__expires_at__gt=now + SPARE),
        kind=Kind.OAUTH,
        status__in=(Status.ACTIVE, Status.RATE_LIMITED),
        deleted_at=None,
        credential__isnull=False,
    )
    return [
        account
        for account, checked_at in rows.values_list("pk", "profile_checked_at")
        if checked_at is None or checked_at > now or checked_at + EVERY + _offset(account) <= now
    ]


def _offset(account: int) -> timedelta:
    """Return how much later than the others an account is asked for."""
    digest = hashlib.sha256(f"profile {account}".encode()).digest()
    return SPREAD * (int.from_bytes(digest[:4], "big") / 2**32)


async def _check(account: int, now: datetime) -> bool:
    claim = await in_thread(_claim, account, now)
    if claim is None:
        return False
    try:
        profile = await profile_endpoint.read(claim.secret, proxy=claim.proxy)
    except OrganizationRefused as error:
        await in_thread(_refused, claim, str(error), now)
        return False
    except ProfileForbidden:
        # A login without the scope for it never tells; that is no fault of anything.
        counters.add("job_calls", "profile", "failed")
        await in_thread(_settle, account, now)
        return False
    except ProfileUnreadable as error:
        await in_thread(_failed, claim, error, now)
        return False
    learnt = await in_thread(learn, account, profile, now=now)
    if not learnt:
        await in_thread(_failed, claim, ProfileUnreadable("is being refreshed"), now)
        return False
    counters.add("job_calls", "profile", "succeeded")
    return True


def _claim(account: int, now: datetime) -> Claim | None:
    """Claim an account by compare-and-swap on what made it due."""
    row = Account.objects.select_related("credential").filter(pk=account).first()
    if row is None or row.credential is None:
        return None
    try:
        secret, proxy = row.credential.access_token, egress.of(row)
    except DecryptError as error:
        log.error("check account:%d: %s", account, error)
        return None
    checked_at, not_before = row.profile_checked_at, row.profile_not_before
    if checked_at is not None and now - EVERY < checked_at <= now + EVERY:
        return None
    if not_before is not None and now < not_before <= now + EVERY:
        return None
    won = Account.objects.filter(
        pk=account,
        credential=row.credential,
        profile_checked_at=row.profile_checked_at,
        profile_not_before=row.profile_not_before,
        deleted_at=None,
    ).update(profile_not_before=now + CLAIM)
    return Claim(account, secret, proxy, row.profile_failures) if won else None


def _write(account: int, profile: Profile, now: datetime) -> None:
    # Locks the row, so that nobody changes it between the look and the update.
    if not _settle(account, now):
        return
    row = Account.objects.get(pk=account)
    # What the answer leaves out is not unlearnt.
    told = {name: value for name, value in asdict(profile).items() if value}
    new = {name: value for name, value in told.items() if getattr(row, name) != value}
    if not new:
        return
    old = {name: getattr(row, name) for name in new}
    Account.objects.filter(pk=account).update(**new)
    moved = bool(old.get("organization_uuid"))
    kind = "account.organization_changed" if moved else "account.profile_changed"
    journal.record(kind, row.subject, by=BY, old=old, new=new)
    bus.changed(POOL)


def _settle(account: int, now: datetime) -> bool:
    asked = Account.objects.filter(pk=account, deleted_at=None).update(
        profile_checked_at=now, profile_not_before=None, profile_failures=0
    )
    return bool(asked)


def _refused(claim: Claim, why: str, now: datetime) -> None:
    _settle(claim.account, now)
    counters.add("job_calls", "profile", "failed")
    health.refuse(claim.account, "provider_disabled", credential=None, by=BY, why=why)


def _failed(claim: Claim, error: ProfileUnreadable, now: datetime) -> None:
    attempt = claim.failures + 1
    wait = waits.policy(error.status).wait(attempt, at_least=error.retry_after)
    counters.add("job_calls", "profile", "later")
    counters.add("backoff_seconds", "profile", by=wait)
    with transaction.atomic():
        noted = Account.objects.filter(pk=claim.account, deleted_at=None).update(
            profile_failures=F("profile_failures") + 1,
            profile_not_before=now + timedelta(seconds=wait),
        )
        # The 1st, 2nd, 4th, 8th ... in a row: a day of trouble is a handful of rows.
        if noted and attempt & (attempt - 1) == 0:
            journal.record(
                "account.profile_failed",
                f"account:{claim.account}",
                by=BY,
                why=str(error),
                attempt=attempt,
                delay=round(wait, 1),
            )
