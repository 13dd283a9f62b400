"""What is done with a relay key: made, changed, given a new secret, switched off, ended.

What it may be given is checked before, by terms.py. Each change is one update of named columns with
a row in the journal, which never holds a secret.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from events import journal
from lib import bus
from sessions_limit import keytext, terms
from sessions_limit.labels import checked
from sessions_limit.models import ClientKey

KEYS = "keys"
OVERLAP = timedelta(hours=24)
LONGEST_OVERLAP = timedelta(days=30)


class KeyRevoked(Exception):
    """A revoked key stays as it is."""

    def __init__(self, key: ClientKey) -> None:
        super().__init__(f"The key {key.name} is revoked; make a new one.")


def create(
    name: str,
    by: str,
    expires_at: datetime | None = None,
    labels: Collection[str] = (),
    **columns: Any,
) -> tuple[ClientKey, str]:
    """Make a key; return its row and the key itself, which nobody can read again.

    `columns` are such as `terms.checked` returns. Raise ValueError for what is no label.
    """
    text = keytext.make()
    row = ClientKey(
        name=name,
        created_by=by,
        expires_at=expires_at,
        labels=checked(labels),
        hash=keytext.hash_of(text),
        hint=keytext.hint_of(text),
        **columns,
    )
    plain = ClientKey()
    given = {
        column: getattr(row, column)
        for column in ("expires_at", "labels", *columns)
        if getattr(row, column) != getattr(plain, column)
    }
    with transaction.atomic():
        row.save(force_insert=True)
        told = terms.told(given)
        journal.record("key.create", f"key:{row.pk}", by=by, name=name, **told)
        bus.changed(KEYS)
    return row, text


def update(key: ClientKey, by: str, **columns: Any) -> ClientKey:
    """Change what is given of a key and return it as it is then; raise KeyRevoked.

    `columns` are such as `terms.checked` returns. To switch a key on or off is told as such.
    """
    with transaction.atomic():
        row = _locked(key)
        if row.revoked_at is not None:
            raise KeyRevoked(row)
        old = {name: getattr(row, name) for name in columns if getattr(row, name) != columns[name]}
        if old:
            new = {name: columns[name] for name in old}
            ClientKey.objects.filter(pk=row.pk).update(**new)
            _tell(row, by, old, new)
            bus.changed(KEYS)
    row.refresh_from_db()
    return row


def enable(key: ClientKey, by: str) -> bool:
    """Let a key open the relay again; False when it did already. Raise KeyRevoked."""
    return _switch(key, by, on=True)


def disable(key: ClientKey, by: str) -> bool:
    """Let a key open nothing until it is enabled; False when it did not. Raise KeyRevoked."""
    return _switch(key, by, on=False)


def rotate(
    key: ClientKey, by: str, overlap: timedelta = OVERLAP, now: datetime | None = None
) -> str:
    """Give a key a new secret and return it, once; the key stays what it is. Raise KeyRevoked.

    The old secret opens the relay for `overlap` longer, and the one before it no more.
    """
    text, now = keytext.make(), now or timezone.now()
    until = now + overlap if overlap > timedelta(0) else None
    with transaction.atomic():
        row = _locked(key)
        if row.revoked_at is not None:
            raise KeyRevoked(row)
        ClientKey.objects.filter(pk=row.pk).update(
            hash=keytext.hash_of(text),
            hint=keytext.hint_of(text),
            previous_hash=row.hash if until else "",
            previous_until=until,
        )
        told = terms.told({"previous_until": until})
        journal.record("key.rotate", f"key:{row.pk}", by=by, name=row.name, **told)
        bus.changed(KEYS)
    return text


def revoke(key: ClientKey, by: str) -> bool:
    """End a key for good; False when it was already revoked."""
    with transaction.atomic():
        now = timezone.now()
        won = ClientKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now)
        if won:
            journal.record("key.revoke", f"key:{key.pk}", by=by, name=key.name)
            bus.changed(KEYS)
    return bool(won)


def _switch(key: ClientKey, by: str, *, on: bool) -> bool:
    with transaction.atomic():
        was_on = _locked(key).enabled
        update(key, by, enabled=on)
    return was_on is not on


def _tell(row: ClientKey, by: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    switched = new.pop("enabled", None)
    if old.pop("enabled", None) is not None:
        kind = "key.enable" if switched else "key.disable"
        journal.record(kind, f"key:{row.pk}", by=by, name=row.name)
    if old:
        changes = {"old": terms.told(old), "new": terms.told(new)}
        journal.record("key.update", f"key:{row.pk}", by=by, name=row.name, **changes)


def _locked(key: ClientKey) -> ClientKey:
    """Return the row as it is, so that the journal tells what was really replaced."""
    return ClientKey.objects.select_for_update().get(pk=key.pk)
