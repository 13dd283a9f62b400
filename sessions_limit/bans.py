"""Which sessions are refused because they were revoked: from the database, seconds old at most."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from django.utils import timezone

from lib.snapshot import Snapshot
from sessions_limit.errors import Revoked
from sessions_limit.models import Revocation

BANS = "bans"


def load() -> dict[str, datetime]:
    """Read until when each revoked session is refused, by its name."""
    rows = Revocation.objects.filter(until__gt=timezone.now())
    return dict(rows.values_list("name", "until"))


snapshot: Snapshot[Mapping[str, datetime]] = Snapshot(load, topic=BANS)


async def check(name: str) -> None:
    """Raise Revoked if this session was; a DatabaseError if nobody knows any more."""
    until = (await snapshot.get()).get(name)
    if until is not None and (left := (until - timezone.now()).total_seconds()) > 0:
        raise Revoked(left)
