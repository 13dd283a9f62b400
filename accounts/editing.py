"""Changing how the pool uses an account: its name, its turn, its limits, its labels, its proxy."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import endpoints, lifecycle, pool, reserve
from accounts.enrolment import NAME_LENGTH, clean_name
from accounts.errors import BadFields, MoveRefused, TryLater
from accounts.models import POOL, Account
from accounts.reserve import HEADROOM, OVERAGE
from accounts.states import Status
from events import journal
from lib import bus

MOST_LABELS = 20
SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}", re.ASCII)
# What a whole-number column holds on every database.
LARGEST = 2**31 - 1
LONGEST_ADDRESS = 500
Rule = Callable[[Any], Any]


def update(account: Account, by: str, **changes: Any) -> Account:
    """Change the named fields of an account and return it as it is then; raise BadFields.

    Nothing is changed unless every field is good. An account that was out only for a setting that
    is relaxed here returns at once (S05b).
    """
    account = _fresh(account)
    given = _checked(account, changes)
    if elsewhere := {name: given.pop(name) for name in endpoints.FIELDS & given.keys()}:
        endpoints.change(account, by=by, **elsewhere)
    old = _write(account, by, given) if given else {}
    account = _fresh(account)
    if _is_relaxed(account, old):
        # Whoever moved it meanwhile knew more.
        with contextlib.suppress(MoveRefused, TryLater):
            account = lifecycle.clear(account, by=by)
    return account


def _checked(account: Account, changes: dict[str, Any]) -> dict[str, Any]:
    """Return what the named fields shall hold; raise BadFields.

    What an endpoint may be is checked by `endpoints`; here only that it is of the right type.
    """
    errors: dict[str, str] = {}
    given: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in RULES:
            errors[name] = "An account has no such setting."
            continue
        try:
            given[name] = RULES[name](value)
        except ValueError as error:
            errors[name] = str(error)
    if "name" in given and _is_taken(account, given["name"]):
        errors["name"] = TAKEN
    if errors:
        raise BadFields(errors)
    return given


def _write(account: Account, by: str, given: dict[str, Any]) -> dict[str, Any]:
    """Write what differs, with one journal row; return the old values of what was written."""
    try:
        with transaction.atomic():
            # Locked, so that the journal tells what was really replaced.
            row = Account.objects.select_for_update().filter(pk=account.pk, deleted_at=None).get()
            old = {name: getattr(row, name) for name in given if getattr(row, name) != given[name]}
            if old:
                new = {name: given[name] for name in old}
                Account.objects.filter(pk=row.pk).update(**new)
                journal.record("account.updated", row.subject, by=by, old=old, new=new)
                bus.changed(POOL)
    except IntegrityError:
        raise BadFields({"name": TAKEN}) from None
    except Account.DoesNotExist:
        raise MoveRefused(f"{account.name} was removed.") from None
    return old


def _is_relaxed(account: Account, old: dict[str, Any]) -> bool:
    """Tell whether the setting for which this account was benched was just relaxed."""
    if account.status != Status.RATE_LIMITED:
        return False
    if account.reason.startswith(HEADROOM) and "leave_at_percent" in old:
        before, after = old["leave_at_percent"], account.leave_at_percent
        if after is None:
            return True
        return before is not None and after > before and not _is_kept(account, after / 100)
    return account.reason.startswith(OVERAGE) and old.get("never_overage") is True


def _is_kept(account: Account, share: float) -> bool:
    """Tell whether so much is used that the account would have to leave again."""
    kept = reserve.leaves(
        pool.windows(account),
        leave_at=share,
        never_overage=False,
        overage_in_use=False,
        now=timezone.now(),
    )
    return kept is not None


def _fresh(account: Account) -> Account:
    found = Account.objects.filter(pk=account.pk, deleted_at=None).first()
    if found is None:
        raise MoveRefused(f"{account.name} was removed.")
    return found


def _is_taken(account: Account, name: str) -> bool:
    return Account.objects.filter(name=name).exclude(pk=account.pk).exists()


def _name(value: Any) -> str:
    name = clean_name(value) if isinstance(value, str) and len(value) <= NAME_LENGTH else ""
    if not name:
        raise ValueError(f"Give the account a name of 1 to {NAME_LENGTH} characters.")
    return name


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("This is either true or false.")
    return value


def _whole(lowest: int, highest: int) -> Rule:
    def rule(value: Any) -> int:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or not lowest <= value <= highest:
            raise ValueError(f"This is a whole number from {lowest} to {highest}.")
        return int(value)

    return rule


def _or_none(rule: Rule) -> Rule:
    return lambda value: None if value is None else rule(value)


def _labels(value: Any) -> list[str]:
    """Return the labels without repetition, in the order given."""
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise ValueError("Labels are a list of words.")
    labels = list(dict.fromkeys(value))
    if odd := [label for label in labels if not SLUG.fullmatch(label)]:
        raise ValueError(
            f"{odd[0][:40]!r} is not a label: 1 to 32 of a-z, 0-9, dot, hyphen and underscore."
        )
    if len(labels) > MOST_LABELS:
        raise ValueError(f"An account has {MOST_LABELS} labels at most.")
    return labels


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_ADDRESS:
        raise ValueError(f"This is a text of {LONGEST_ADDRESS} characters at most.")
    return value


def _secret(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("This is a text.")
    return value


def _map(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("This maps patterns to names of models.")
    return value


TAKEN = "Another account has this name."
RULES: dict[str, Rule] = {
    "name": _name,
    "priority": _whole(0, 1000),
    "weight": _whole(1, 100),
    "max_in_flight": _or_none(_whole(1, 10_000)),
    "requests_per_minute": _or_none(_whole(1, LARGEST)),
    "tokens_per_minute": _or_none(_whole(1, LARGEST)),
    "labels": _labels,
    "never_overage": _flag,
    "leave_at_percent": _or_none(_whole(1, 100)),
    "pinned": _flag,
    "base_url": _text,
    "auth": _text,
    "forwards_betas": _flag,
    "model_map": _map,
    "secret": _secret,
    "proxy": lambda value: "" if value is None else _text(value),
}
