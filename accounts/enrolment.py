"""Puts a login into the pool: a new account, or a new grant of the one it belongs to."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.utils import timezone

from accounts import grants
from accounts.merging import unite
from accounts.models import POOL, Account, Credential
from accounts.oauth import Grant
from accounts.states import RESTORED, Kind, Status
from events import journal
from lib import bus
from lib.crypto import keyed_hash

NAME_LENGTH = 100
RACES = 3


@dataclass(frozen=True, slots=True)
class Login:
    """A secret and whose it is; texts that are not known are empty.

    Identified by (account uuid, organization uuid); without them by `secret_hash`. `profile_read`:
    Anthropic said whose it is just now. `is_restored`: it comes from a back-up.
    """

    kind: Kind
    grant: Grant
    account_uuid: str = ""
    organization_uuid: str = ""
    secret_hash: str = ""
    email: str = ""
    organization_name: str = ""
    plan: str = ""
    tier: str = ""
    subscription_status: str = ""
    profile_read: bool = False
    is_restored: bool = False


def secret_hash(secret: str) -> str:
    """Return what stands for a secret where it must be recognised and not known."""
    return keyed_hash(secret, "account secret")


def known(login: Login) -> Account | None:
    """Return the account that this login belongs to, if it is linked already."""
    return _same(login).first()


def enrol(login: Login, *, name: str, by: str, now: datetime) -> Account:
    """Link a login and return its account; in the caller's transaction.

    An account that is there already gets a new grant and keeps its row, its name and its history
    (S12); otherwise a new, active one is made (S01), `name` numbered if it is taken.
    """
    for attempt in range(RACES):
        existing = known(login)
        try:
            with transaction.atomic():
                if existing is not None:
                    return _relink(existing, login, by, now)
                return _create(login, free_name(name or login.email or login.kind), by, now)
        except IntegrityError:
            # Another process linked the same account, or took the name, a moment ago.
            if attempt == RACES - 1:
                raise
    raise AssertionError


def learn(account: Account, grant: Grant) -> None:
    """Note whose login it is, if nothing told so until now; in the caller's transaction.

    An account that turns out to be linked already is merged with the one that is there.
    """
    if account.account_uuid or not grant.account_uuid:
        return
    whose = {"account_uuid": grant.account_uuid, "organization_uuid": grant.organization_uuid}
    # The same account may be linked a second time just now: the check of its profile finds out.
    with contextlib.suppress(IntegrityError), transaction.atomic():
        left = unite(account.pk, **whose, by="refresh", now=timezone.now())
        rows = Account.objects.filter(account_uuid="", pk__in=[] if left is None else [left])
        rows.update(**whose, email=grant.email, organization_name=grant.organization_name)


def free_name(wanted: str) -> str:
    """Return the wanted name, or the first one with a number that nobody has."""
    wanted = clean_name(wanted) or "account"
    name, number = wanted, 1
    while Account.objects.filter(name=name).exists():
        number += 1
        name = f"{wanted[: NAME_LENGTH - 8]} {number}"
    return name


def clean_name(name: str) -> str:
    """Return a name without control characters and outer space, not longer than the column."""
    printable = "".join(char if char.isprintable() else " " for char in name)
    return " ".join(printable.split())[:NAME_LENGTH]


def _same(login: Login) -> models.QuerySet[Account]:
    rows = Account.objects.filter(deleted_at=None)
    by_secret = Q(secret_hash=login.secret_hash, kind=login.kind) & ~Q(secret_hash="")
    if not login.account_uuid:
        return rows.filter(by_secret)
    whose = Q(account_uuid=login.account_uuid, organization_uuid=login.organization_uuid)
    # A secret that was added before anybody told whose it is; an account known by name goes first.
    return rows.filter(whose | by_secret & Q(account_uuid="")).order_by("-account_uuid")


def _create(login: Login, name: str, by: str, now: datetime) -> Account:
    # A new account serves at once (S01); one from a back-up when it is enabled (S02).
    state = {"status": Status.INACTIVE, "reason": RESTORED} if login.is_restored else {}
    account = Account.objects.create(
        name=name, kind=login.kind, status_changed_at=now, **state, **_facts(login, now)
    )
    credential = _first_generation(account, 1, login, now)
    Account.objects.filter(pk=account.pk).update(credential=credential)
    account.credential = credential
    what = "account.restored" if login.is_restored else "account.linked"
    journal.record(what, account.subject, by=by, account_kind=login.kind)
    bus.changed(POOL)
    return account


def _relink(account: Account, login: Login, by: str, now: datetime) -> Account:
    last = account.credentials.aggregate(last=models.Max("grant"))["last"] or 0
    credential = _first_generation(account, last + 1, login, now)
    if not grants.switch(account, credential, by=by, now=now, facts=_facts(login, now)):
        raise IntegrityError("the account was removed a moment ago")
    return account


def _facts(login: Login, now: datetime) -> dict[str, Any]:
    facts = {
        "account_uuid": login.account_uuid,
        "organization_uuid": login.organization_uuid,
        "secret_hash": "" if login.account_uuid else login.secret_hash,
        "email": login.email,
        "organization_name": login.organization_name,
        "plan": login.plan,
        "tier": login.tier,
        "subscription_status": login.subscription_status,
        "scopes": login.grant.scopes,
    }
    # An unreadable profile must not blank what an earlier one told.
    told = {name: value for name, value in facts.items() if value}
    return told | {
        "grant_started_at": now,
        "grant_ends_at": login.grant.grant_ends_at,
        "profile_checked_at": now if login.profile_read else None,
        "profile_not_before": None,
        "profile_failures": 0,
    }


def _first_generation(account: Account, grant: int, login: Login, now: datetime) -> Credential:
    return Credential.objects.create(
        account=account,
        grant=grant,
        generation=1,
        access_token=login.grant.access_token,
        refresh_token=login.grant.refresh_token,
        expires_at=login.grant.expires_at,
        obtained_at=now,
    )
