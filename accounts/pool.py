"""The pool as the data plane sees it: frozen members, read from the database each second or so."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from accounts.models import POOL, Account
from accounts.states import Kind, Status, is_ahead
from lib.crypto import DecryptError
from lib.snapshot import Snapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """One account of the pool at one moment.

    `credential` names the generation that `secret` belongs to; `expires_at` is None for a secret
    that does not end. A member whose credential does not open is not in the pool.
    """

    id: int
    name: str
    kind: Kind
    status: Status
    limited_until: datetime | None
    probe_at: datetime | None
    cooldown_until: datetime | None
    credential: UUID
    secret: str = field(repr=False)
    expires_at: datetime | None = None

    def is_usable(self, now: datetime) -> bool:
        """Tell whether a request may go to this account now.

        A `rate_limited` account whose time has passed is usable at once; the job only tidies.
        """
        if is_ahead(self.cooldown_until, now):
            return False
        if self.status is Status.RATE_LIMITED:
            return not is_ahead(self.limited_until, now)
        return self.status is Status.ACTIVE

    def may_be_probed(self, now: datetime) -> bool:
        """Tell whether one request may find out if this account's limit is over early (S05b)."""
        return (
            self.status is Status.RATE_LIMITED
            and is_ahead(self.limited_until, now)
            and not is_ahead(self.cooldown_until, now)
            and self.probe_at is not None
            and self.probe_at <= now
        )

    def returns_at(self, now: datetime) -> datetime | None:
        """Return when a limit or cool-down that keeps this account out ends; None if none does."""
        times = [self.cooldown_until]
        if self.status is Status.RATE_LIMITED:
            times.append(self.limited_until)
        elif self.status is not Status.ACTIVE:
            return None
        return max((time for time in times if time is not None and time > now), default=None)


@dataclass(frozen=True, slots=True)
class Pool:
    """All members, in the order in which they were linked."""

    members: tuple[Member, ...] = ()

    def member(self, account: int) -> Member | None:
        """Return the member with this account id, if it is (still) in the pool."""
        return next((member for member in self.members if member.id == account), None)


def load() -> Pool:
    """Read the pool from the database."""
    accounts = Account.objects.filter(deleted_at=None).select_related("credential")
    return Pool(tuple(filter(None, map(_member, accounts))))


def _member(account: Account) -> Member | None:
    credential = account.credential
    if credential is None:
        return None
    try:
        secret = credential.access_token
    except DecryptError as error:
        log.error("open credential of %s: %s", account.subject, error)
        return None
    return Member(
        id=account.pk,
        name=account.name,
        kind=Kind(account.kind),
        status=Status(account.status),
        limited_until=account.limited_until,
        probe_at=account.probe_at,
        cooldown_until=account.cooldown_until,
        credential=credential.id,
        secret=secret,
        expires_at=credential.expires_at,
    )


snapshot: Snapshot[Pool] = Snapshot(load, topic=POOL)
