"""Tokens for the admin API: made, revoked and recognised."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from events import journal
from lib.crypto import keyed_hash
from proxy_project.models import AdminToken

PREFIX = "adm_"
LONGEST = 128
UNKNOWN_KEPT = 1024
# Last use is for people, who want to know which token nobody needs any more.
COARSE = timedelta(minutes=1)

_unknown: OrderedDict[str, None] = OrderedDict()


def create(name: str, by: str, expires_at: datetime | None = None) -> tuple[AdminToken, str]:
    """Make a token; return its row and the token itself, which nobody can read again."""
    text = PREFIX + secrets.token_urlsafe(32)
    with transaction.atomic():
        row = AdminToken.objects.create(
            name=name, hash=_hash(text), hint=text[-4:], created_by=by, expires_at=expires_at
        )
        journal.record("token.create", f"token:{row.pk}", by=by, name=name)
    return row, text


def revoke(token: AdminToken, by: str, now: datetime | None = None) -> bool:
    """End a token for good; False when it was already revoked."""
    with transaction.atomic():
        unrevoked = AdminToken.objects.filter(pk=token.pk, revoked_at=None)
        won = unrevoked.update(revoked_at=now or timezone.now())
        if won:
            journal.record("token.revoke", f"token:{token.pk}", by=by, name=token.name)
    return bool(won)


def authenticate(text: str, now: datetime | None = None) -> AdminToken | None:
    """Return the token that `text` is; None for an unknown, expired or revoked one.

    Looked up by its keyed hash, so that the time it takes says nothing of how near a guess was. A
    guess that is repeated costs no query; nobody can have been given a token that was once unknown.
    """
    if not text.startswith(PREFIX) or len(text) > LONGEST or not text.isascii():
        return None
    digest = _hash(text)
    if digest in _unknown:
        return None
    now = now or timezone.now()
    token = AdminToken.objects.filter(hash=digest).first()
    if token is None:
        _remember_unknown(digest)
        return None
    if token.state(now) != "active":
        return None
    _note_use(token, now)
    return token


def _remember_unknown(digest: str) -> None:
    _unknown[digest] = None
    if len(_unknown) > UNKNOWN_KEPT:
        _unknown.popitem(last=False)


def _note_use(token: AdminToken, now: datetime) -> None:
    if token.last_used_at is None or token.last_used_at <= now - COARSE:
        AdminToken.objects.filter(pk=token.pk).update(last_used_at=now)


def _hash(text: str) -> str:
    return keyed_hash(text, "admin token")
