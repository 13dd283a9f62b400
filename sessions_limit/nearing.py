"""Budgets of keys that are nearly or wholly used: announced once each in their period."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from django.utils import timezone

from events import conditions
from events.models import Condition
from sessions_limit.budgets import HAS_BUDGET
from sessions_limit.models import ClientKey
from sessions_limit.standing import Standing, in_words, standings

NEAR, SPENT = "key.budget_near", "key.budget_spent"
NEAR_SHARE = 0.8
# Kind, subject and detail of a condition.
Told = tuple[str, str, str]


def watch(now: datetime | None = None) -> int:
    """Announce what is near its end or beyond it; return how many budgets that was."""
    now = now or timezone.now()
    known = _known(now)
    keys = list(ClientKey.objects.filter(HAS_BUDGET, enabled=True, revoked_at=None))
    found = standings(keys, now)
    return sum(_announce(key, one, known, now) for key in keys for one in found[key.pk])


def _announce(key: ClientKey, one: Standing, known: set[Told], now: datetime) -> bool:
    subject, detail = f"key:{key.pk}", _detail(one)
    kind = SPENT if one.share >= 1 else NEAR
    # A budget of nothing is meant to let nothing in.
    if one.share < NEAR_SHARE or not one.most:
        return False
    if known & {(kind, subject, detail), (SPENT, subject, detail)}:
        return False
    return conditions.begin(
        kind,
        subject,
        now=now,
        detail=detail,
        name=key.name,
        period=one.period,
        budget=in_words(one.unit, one.most),
        used=in_words(one.unit, one.used),
        # Never rounded up to the whole of it.
        utilization=math.floor(100 * one.share) / 100,
        reset_at=one.resets_at.isoformat(),
    )


def _known(now: datetime) -> set[Told]:
    """Return what is announced already; forget what has been renewed since."""
    rows = Condition.objects.filter(kind__in=(NEAR, SPENT))
    known = set(rows.values_list("kind", "subject", "detail"))
    over = {told for told in known if _reset(told) <= now}
    for kind, subject, detail in over:
        conditions.end(kind, subject, detail=detail)
    return known - over


def _detail(one: Standing) -> str:
    # A budget that is changed is another one, and announced for itself.
    return f"{one.unit} {one.period} {one.most} {one.resets_at.astimezone(UTC):%Y-%m-%dT%H:%M}"


def _reset(told: Told) -> datetime:
    return datetime.fromisoformat(told[2].rpartition(" ")[2]).replace(tzinfo=UTC)
