"""In which state an account was over the last day and week, drawn from the journal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from accounts.cards import LABELS
from accounts.models import Account
from accounts.states import Status, Trigger
from events.models import Event

SPANS = (("24 hours", timedelta(hours=24)), ("7 days", timedelta(days=7)))
MOVES = [f"account.{trigger}" for trigger in Trigger]
STATES = tuple(Status)
WIDTH, NARROWEST = 1000, 3
# From where to where each state reaches, from the top: never told apart by its colour alone.
SHAPES = {
    Status.ACTIVE: ((0, 12),),
    Status.RATE_LIMITED: ((6, 12),),
    Status.INACTIVE: ((10, 12),),
    Status.INVALID: ((0, 4), (8, 12)),
}


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which the state stayed the same."""

    status: Status
    begins: datetime
    ends: datetime
    path: str = ""

    @property
    def label(self) -> str:
        """The state in words."""
        return LABELS[self.status]

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.ends - self.begins).total_seconds()


@dataclass(frozen=True, slots=True)
class Strip:
    """The states of one span of time; `totals` are the seconds in each state it was in."""

    label: str
    stretches: tuple[Stretch, ...]
    totals: tuple[tuple[Status, str, float], ...]


def load(account: Account, now: datetime) -> list[Strip]:
    """Return a strip for each span up to `now`; one query."""
    since = now - max(span for _, span in SPANS)
    rows = Event.objects.filter(subject=account.subject, kind__in=MOVES, at__gte=since)
    moves = [
        (at, data.get("old"), data.get("new"))
        for at, data in rows.order_by("id").values_list("at", "data")
    ]
    history = stretches(moves, Status(account.status), account.created_at, now)
    return [_strip(label, history, now - span, now) for label, span in SPANS]


def stretches(
    moves: Iterable[tuple[datetime, object, object]],
    status: Status,
    begins: datetime,
    now: datetime,
) -> list[Stretch]:
    """Return the states from `begins` to `now`; pure. `status` is the present one.

    `moves` are when, from what and to what, in order; one that names no states is none.
    """
    known = [
        (at, Status(str(old)), Status(str(new)))
        for at, old, new in moves
        if old in STATES and new in STATES
    ]
    found: list[Stretch] = []
    state = known[0][1] if known else status
    for at, _, new in known:
        if new is not state:
            found.append(Stretch(state, begins, max(at, begins)))
            state, begins = new, max(at, begins)
    return [*found, Stretch(state, begins, max(now, begins))]


def _strip(label: str, history: Iterable[Stretch], since: datetime, until: datetime) -> Strip:
    inside = [
        Stretch(one.status, max(one.begins, since), one.ends, _path(one, since, until))
        for one in history
        if one.ends > since
    ]
    totals = (
        (status, name, sum(one.seconds for one in inside if one.status is status))
        for status, name in LABELS.items()
    )
    return Strip(label, tuple(inside), tuple(total for total in totals if total[2] >= 1))


def _path(stretch: Stretch, since: datetime, until: datetime) -> str:
    """Return a stretch as the `d` of an SVG path."""
    # A minute of a week would be too narrow to be seen.
    left = min(_place(max(stretch.begins, since), since, until), WIDTH - NARROWEST)
    right = max(_place(stretch.ends, since, until), left + NARROWEST)
    return " ".join(f"M{left} {a}H{right}V{b}H{left}Z" for a, b in SHAPES[stretch.status])


def _place(at: datetime, since: datetime, until: datetime) -> int:
    return round(WIDTH * ((at - since) / (until - since)))
