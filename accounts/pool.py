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
from providers import compatible, registry
from providers.base import Endpoint, Provider, Window

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """One account of the pool at one moment.

    `credential` names the generation that `secret` belongs to; `expires_at` is None for a secret
    that does not end. `leave_at` is a fraction of a window. `endpoint` is given for a compatible
    account, `proxy` (an address that may hold a password) for one with a proxy of its own. A member
    whose secrets do not open is not in the pool.
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
    priority: int = 50
    weight: int = 1
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    labels: frozenset[str] = frozenset()
    never_overage: bool = True
    leave_at: float | None = None
    endpoint: Endpoint | None = None
    proxy: str = field(default="", repr=False)
    windows: tuple[Window, ...] = ()
    last_used_at: datetime | None = None
    reason: str = ""
    cleared_at: datetime | None = None

    @property
    def provider(self) -> Provider:
        """How to speak to this account's upstream."""
        return registry.provider(self.kind, self.endpoint)

    @property
    def pace(self) -> tuple[int | None, int | None]:
        """How many requests and tokens a minute an operator allows."""
        return self.requests_per_minute, self.tokens_per_minute

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
    """Read the pool from the database; three queries."""
    accounts = Account.objects.filter(deleted_at=None).select_related("credential", "egress")
    return Pool(tuple(filter(None, map(_member, accounts.prefetch_related("windows")))))


def windows(account: Account) -> tuple[Window, ...]:
    """Return the last thing that was said about each of an account's windows."""
    return tuple(
        Window(w.name, w.status or None, w.utilization, w.reset_at, w.limit, w.remaining)
        for w in account.windows.all()
    )


def _member(account: Account) -> Member | None:
    credential = account.credential
    if credential is None:
        return None
    try:
        secret = credential.access_token
        proxy = account.egress.url if hasattr(account, "egress") else ""
    except DecryptError as error:
        log.error("open credential of %s: %s", account.subject, error)
        return None
    percent = account.leave_at_percent
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
        priority=account.priority,
        weight=account.weight,
        max_in_flight=account.max_in_flight,
        requests_per_minute=account.requests_per_minute,
        tokens_per_minute=account.tokens_per_minute,
        labels=frozenset(account.labels),
        never_overage=account.never_overage,
        leave_at=None if percent is None else percent / 100,
        endpoint=_endpoint(account),
        proxy=proxy,
        windows=windows(account),
        last_used_at=account.last_used_at,
        reason=account.reason,
        cleared_at=account.cleared_at,
    )


def _endpoint(account: Account) -> Endpoint | None:
    if account.kind != Kind.COMPATIBLE:
        return None
    mapped = compatible.in_order(account.model_map)
    return Endpoint(account.base_url, account.auth, account.forwards_betas, mapped)


snapshot: Snapshot[Pool] = Snapshot(load, topic=POOL)
