"""First-run set-up: a one-time link creates the first operator; there is no default password."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from events import journal
from lib.crypto import keyed_hash
from proxy_project.models import SetupLink

VALID = timedelta(hours=1)
TOKEN_BYTES = 32
PURPOSE = "setup link"


def make_link(base: str, now: datetime | None = None) -> str | None:
    """Return a new one-time link under `base`, valid for an hour; None when an operator exists.

    The link that was in force before stops working.
    """
    if has_operator():
        return None
    token = secrets.token_urlsafe(TOKEN_BYTES)
    expires_at = (now or timezone.now()) + VALID
    given = {"hash": keyed_hash(token, PURPOSE), "expires_at": expires_at}
    SetupLink.objects.update_or_create(id=1, defaults=given)
    return f"{base.rstrip('/')}/setup/{token}"


def is_valid(token: str, now: datetime | None = None) -> bool:
    """Tell whether the link with this token would let somebody in."""
    return _links(token, now).exists() and not has_operator()


def create_operator(token: str, operator: User, now: datetime | None = None) -> bool:
    """Use up the link and store `operator` as the first operator; False when it is not valid.

    Deleting the link's row is the compare-and-swap: of two tabs only one deletes it.
    """
    with transaction.atomic():
        used, _ = _links(token, now).delete()
        if not used or has_operator():
            return False
        operator.is_staff = operator.is_superuser = True
        operator.save()
        name = operator.get_username()
        journal.record("operator.created", f"user:{operator.pk}", by=name, name=name)
    return True


def has_operator() -> bool:
    """Tell whether anybody can sign in to the console."""
    return User.objects.filter(is_staff=True, is_active=True).exists()


def _links(token: str, now: datetime | None) -> QuerySet[SetupLink]:
    return SetupLink.objects.filter(
        hash=keyed_hash(token, PURPOSE), expires_at__gt=now or timezone.now()
    )
