"""What the console's list says about keys: their state, their fullest budget, their sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from sessions_limit import bars, caps
from sessions_limit.bars import Bar
from sessions_limit.models import ClientKey, ClientSession
from sessions_limit.scopes import ANY

TONES = {"active": "active", "revoked": "invalid", "expired": "inactive", "disabled": "inactive"}
STATES = tuple(TONES)


@dataclass(frozen=True, slots=True)
class Row:
    """A key as the list shows it; `most` is how many sessions it may have, ANY for any number."""

    key: ClientKey
    sessions: int = 0
    most: int = ANY
    bar: Bar | None = None

    @property
    def state(self) -> str:
        """What the key is good for now, in a word."""
        return self.key.state

    @property
    def tone(self) -> str:
        """Which badge says so."""
        return TONES[self.state]

    @property
    def is_usable(self) -> bool:
        """Whether the key opens the relay now."""
        return self.state == "active"

    @property
    def is_full(self) -> bool:
        """Whether it may have no session more."""
        return self.most != ANY and self.sessions >= self.most


def rows(keys: Sequence[ClientKey], now: datetime | None = None) -> list[Row]:
    """Return keys as the list shows them; one query for the sessions and few for the budgets."""
    living = count_sessions(key.pk for key in keys)
    budgets = bars.load(keys, now or timezone.now())
    return [
        Row(
            key, living[key.pk], caps.most_sessions(key.max_sessions), bars.fullest(budgets[key.pk])
        )
        for key in keys
    ]


def found(state: str = "", text: str = "", now: datetime | None = None) -> QuerySet[ClientKey]:
    """Return the keys that are wanted, newest first; "" is any."""
    keys = ClientKey.objects.filter(is_in(state, now or timezone.now()) if state else Q())
    if text:
        hint = text.removeprefix("rk_…")
        keys = keys.filter(Q(name__icontains=text) | Q(owner__icontains=text) | Q(hint=hint))
    return keys


def count_usable(now: datetime | None = None) -> int:
    """Return how many keys open the relay at `now`."""
    return found("active", now=now).count()


def count_sessions(keys: Iterable[int]) -> Counter[int]:
    """Return how many living sessions each of these keys has."""
    living = ClientSession.objects.filter(ended_at=None, key__in=list(keys)).order_by()
    return Counter(dict(living.values_list("key").annotate(Count("pk"))))


def is_in(state: str, now: datetime) -> Q:
    """Return what finds the keys in a state, as `ClientKey.state` tells it."""
    if state == "revoked":
        return Q(revoked_at__isnull=False)
    lives = Q(expires_at=None) | Q(expires_at__gt=now)
    if state == "expired":
        return Q(revoked_at=None) & ~lives
    return Q(revoked_at=None, enabled=state == "active") & lives
