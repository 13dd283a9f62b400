"""How the pool and its surroundings stand, in numbers, for whoever watches from outside."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from enum import StrEnum

import redis
from django.conf import settings
from django.db import Error as DatabaseError
from django.utils import timezone
from ninja import Field, Schema

from accounts import cards, facts, outlook, watching
from accounts.cards import Card
from accounts.forecast import Total
from accounts.models import Account
from accounts.states import Status, is_ahead
from lib.redis import for_jobs
from usage import recorder

PATIENCE = 1.0
SOON = timedelta(minutes=15)
# The worker empties the streams each second; what waits longer waits for a worker.
LATE_SECONDS = 30
STREAMS = (recorder.STREAM, facts.STREAM)


class Health(StrEnum):
    """How the whole stands."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class HealthOut(Schema):
    """How the whole stands, and why not better."""

    status: Health
    reasons: list[str]
    worker_lag_seconds: float | None = Field(
        description="how long the oldest fact waits for a worker; null when none waits or is known"
    )


class AccountsOut(Schema):
    """How many accounts there are, and where they stand."""

    total: int
    usable: int = Field(description="would be chosen for a request now")
    cooling_down: int
    by_status: dict[str, int]


class TokensOut(Schema):
    """The ids of accounts whose login needs watching."""

    expiring_soon: list[int] = Field(description="the access token ends within 15 minutes")
    refresh_failing: list[int]
    grants_ending: list[int] = Field(
        description="the login itself ends within GRANT_WARNING_DAYS, five unless set"
    )


class PoolWindowOut(Schema):
    """What all accounts of a plan have left of one limit window, in units of a Pro plan."""

    name: str
    headroom: float
    of: int = Field(description="all there would be with nothing used")
    unknown: int = Field(description="accounts of which nothing is known; they count nowhere else")
    rate_per_hour: float
    runs_out_at: datetime | None


class Statistics(Schema):
    """How the pool and its surroundings stand at one moment."""

    at: datetime
    health: HealthOut
    accounts: AccountsOut
    tokens: TokensOut
    pool: list[PoolWindowOut]


def load(now: datetime | None = None) -> Statistics:
    """Return how everything stands; a database that does not answer makes it unhealthy."""
    now = now or timezone.now()
    reasons: dict[str, Health] = {}
    pool: list[Card] = []
    totals: tuple[Total, ...] = ()
    try:
        pool, totals = cards.load(now), outlook.load(now).pool
    except DatabaseError:
        reasons["The database does not answer."] = Health.UNHEALTHY
    else:
        reasons |= _of_the_pool(pool, now)
    lag = None
    try:
        lag = _worker_lag()
    except (redis.RedisError, OSError):
        reasons["Redis does not answer."] = Health.UNHEALTHY
    if lag is not None and lag > LATE_SECONDS:
        reasons[f"Facts wait for a worker since {lag:.0f} s."] = Health.DEGRADED
    worst = max(reasons.values(), key=list(Health).index, default=Health.HEALTHY)
    return Statistics(
        at=now,
        health=HealthOut(status=worst, reasons=list(reasons), worker_lag_seconds=lag),
        accounts=_accounts(pool, now),
        tokens=_tokens(pool, now),
        pool=[PoolWindowOut(**asdict(total)) for total in totals],
    )


def _of_the_pool(pool: list[Card], now: datetime) -> dict[str, Health]:
    if not pool:
        return {"The pool is empty.": Health.UNHEALTHY}
    if not any(_serves(card.account, now) for card in pool):
        return {"No account can serve requests now.": Health.UNHEALTHY}
    # One that an operator switched off is as it should be.
    away = [card for card in pool if card.step and card.account.status != Status.INACTIVE]
    if away:
        return {f"{len(away)} of {len(pool)} accounts cannot serve now.": Health.DEGRADED}
    return {}


def _serves(account: Account, now: datetime) -> bool:
    """Tell whether a request would find this account, or wake it."""
    return cards.is_usable(account, now) or watching.would_wake(account, now)


def _accounts(pool: list[Card], now: datetime) -> AccountsOut:
    return AccountsOut(
        total=len(pool),
        usable=sum(cards.is_usable(card.account, now) for card in pool),
        cooling_down=sum(is_ahead(card.account.cooldown_until, now) for card in pool),
        by_status={status: number for status, _, number in cards.count(pool)},
    )


def _tokens(pool: list[Card], now: datetime) -> TokensOut:
    ends = {
        card.account.pk: card.account.credential.expires_at
        for card in pool
        if card.account.credential and card.account.credential.expires_at
    }
    horizon = now + timedelta(days=settings.CONFIG.grant_warning_days)
    return TokensOut(
        expiring_soon=[pk for pk, end in ends.items() if end <= now + SOON],
        refresh_failing=[card.account.pk for card in pool if card.account.refresh_failures],
        grants_ending=[
            card.account.pk for card in pool if card.ends is not None and card.ends.at <= horizon
        ],
    )


def _worker_lag() -> float | None:
    """Return how many seconds the oldest entry of the streams waits; None when none waits."""
    with contextlib.closing(for_jobs(PATIENCE)) as client:
        firsts = [client.xrange(stream, count=1) for stream in STREAMS]
    ids = [entries[0][0] for entries in firsts if entries]
    if not ids:
        return None
    return max(0.0, time.time() - min(int(str(entry).partition("-")[0]) for entry in ids) / 1000)
