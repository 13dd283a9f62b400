"""What the subjects of the journal are called: "account:7" is Ada."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from django.apps import apps

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
    return list(model._default_manager.filter(pk__in=keys).values_list("pk", column))
