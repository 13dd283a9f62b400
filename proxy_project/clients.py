"""What the clients of the relay have under way, as the overview shows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from events.models import Condition
from sessions_limit import alone, session_listing, showing
from sessions_limit.session_listing import Under


@dataclass(frozen=True, slots=True)
class Clients:
    """What lives and is under way; since when processes decide alone, None while none does."""

    under: Under
    degraded_since: datetime | None


def load() -> Clients:
    """Return how the clients stand now."""
    names = session_listing.names_of(showing.found())
    degraded = Condition.objects.filter(kind=alone.DEGRADED).order_by("since")
    return Clients(
        under=session_listing.under_way(names, session_listing.look()),
        degraded_since=degraded.values_list("since", flat=True).first(),
    )
