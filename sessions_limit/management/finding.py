"""A key as people name it on the command line: by its id or, if only one has it, by its name."""

from __future__ import annotations

from django.core.management.base import CommandError

from lib import names
from sessions_limit.models import ClientKey


def key(text: str) -> ClientKey:
    """Return the key that is meant; of several that share a name the one that is not revoked.

    Raise CommandError.
    """
    if text.isascii() and text.isdigit() and len(text) < 19:
        found = list(ClientKey.objects.filter(pk=int(text)))
    else:
        named = ClientKey.objects.filter(name=names.plain(text))
        found = list(named.filter(revoked_at=None)[:2]) or list(named[:2])
    if len(found) > 1:
        raise CommandError(f"several keys are named {text!r}; use the id")
    if not found:
        raise CommandError(f"there is no key {text!r}; see: manage.py key list")
    return found[0]
