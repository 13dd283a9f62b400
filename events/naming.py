"""What the subjects of the journal are called: "account:7" is Ada."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import Model

# Type of subject -> model by its label (no app above is imported here) and the column of its name.
NAMED = {
    "account": ("accounts.Account", "name"),
    "key": ("sessions_limit.ClientKey", "name"),
    "channel": ("events.Channel", "name"),
    "rule": ("events.Rule", "name"),
    "user": ("auth.User", "username"),
}


def names(subjects: Iterable[str]) -> dict[str, str]:
    """Return the names of those subjects that have one; one query per type."""
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for subject in subjects:
        kind, _, key = subject.partition(":")
        if kind in NAMED:
            wanted[kind].add(key)
    return {
        f"{kind}:{key}": name for kind, keys in wanted.items() for key, name in _find(kind, keys)
    }


def _find(kind: str, keys: set[str]) -> list[tuple[object, str]]:
    label, column = NAMED[kind]
    model = apps.get_model(label)
    found = model._default_manager.filter(pk__in=filter(None, (_as_pk(model, k) for k in keys)))
    return list(found.values_list("pk", column))


def _as_pk(model: type[Model], key: str) -> Any:
    """Return a key as the database knows it; None for what cannot be one."""
    try:
        value = model._meta.pk.to_python(key)
    except ValidationError:
        return None
    return None if isinstance(value, int) and value >= 2**63 else value
