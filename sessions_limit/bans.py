"""Which sessions are refused because they were revoked: from the database, seconds old at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from lib.snapshot import Snapshot
from sessions_limit import targets
from sessions_limit.errors import Revoked
from sessions_limit.models import Revocation

BANS = "bans"


@dataclass(frozen=True, slots=True)
class Ban:
    """Until when something is refused; a wide target only what began before it was `made_at`."""

    made_at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Suspect:
    """A session that may be revoked: its name, what else it may be revoked by, and its age.

    `since` is in epoch seconds, None for one that nobody has seen: no wide target means that.
    """

    name: str
    key: int
    address: str
    since: float | None


def load() -> dict[str, Ban]:
    """Read what is refused, by the names of sessions and wide targets."""
    rows = Revocation.objects.filter(until__gt=timezone.now())
    return {
        name: Ban(at, until) for name, at, until in rows.values_list("name", "made_at", "until")
    }


snapshot: Snapshot[Mapping[str, Ban]] = Snapshot(load, topic=BANS)


async def check(suspect: Suspect) -> None:
    """Raise Revoked if this session was; a DatabaseError if nobody knows any more."""
    now = timezone.now()
    if (until := banned_until(await snapshot.get(), suspect, now)) is not None:
        raise Revoked((until - now).total_seconds())


def banned_until(bans: Mapping[str, Ban], suspect: Suspect, now: datetime) -> datetime | None:
    """Return until when a session is refused; None: it is not."""
    if not bans:
        return None
    found = [bans.get(suspect.name)]
    if (since := suspect.since) is not None:
        covering = targets.covering(suspect.key, suspect.address)
        wide = (bans.get(target) for target in covering)
        found += [ban for ban in wide if ban and since <= ban.made_at.timestamp()]
    return max((ban.until for ban in found if ban and ban.until > now), default=None)
