"""What each ending teaches this process: its breakers, its slow starts, its penalties."""

from __future__ import annotations

from django.utils import timezone

from accounts.pool import Pool
from relay import breaker, effects, news, quota
from relay.bench import bench
from relay.budget import budget
from relay.cooldowns import detours
from relay.line import line
from relay.load import dealt
from relay.quota import Place
from relay.ramp import ramp
from relay.trail import Ended, Trail
from relay.verdicts import Effect, Row

BENCHED = {Effect.LIMIT, Effect.BILLING, Effect.SPEND_CAP, Effect.COOL_DOWN, Effect.DETOUR}
# One that is refused for no reason given may have too much at once.
SLOWED = BENCHED | {Effect.PENALTY}
# After these its sessions, or those of a model, come to the other accounts at once.
FALLING_OUT = BENCHED | {Effect.BUCKET, Effect.INVALID}
# What one key's requests may do to accounts is the key's doing only if the account was not spent.
TOUCHING = {Effect.BILLING, Effect.SPEND_CAP, Effect.COOL_DOWN, Effect.INVALID}
DELIVERED = "D37"
BROKEN_OFF = {Ended.UPSTREAM_CUT, Ended.ERROR_IN_STREAM}


def judged(row: Row, place: Place, key: int, pool: Pool) -> None:
    """Learn from an attempt's verdict."""
    account = place.member.id
    member = pool.member(account)
    if row.id != "D02" and (member is None or member.endpoint is None):
        breaker.host.saw(accepted="H" not in row.blames, connected=row.id != "D01")
    if "A" in row.blames:
        _failed(account, pool)
    if row.effect in SLOWED:
        ramp.restart(account)
    if row.effect in FALLING_OUT:
        _ease_others(account, pool)
    if row.id == DELIVERED and ramp.succeeded(account, place.start):
        # An answer that has begun proves that there is room; its end may be minutes away.
        line.wake()
    if row.effect in TOUCHING and not row.proven:
        breaker.keys.touched(key)


def ended(trail: Trail, model: str, pool: Pool) -> None:
    """Learn from how a delivered answer ended: only a whole one is a success."""
    account = trail.account
    if account is None or not trail.attempts or trail.attempts[-1].row != DELIVERED:
        return
    if trail.ended is Ended.COMPLETE:
        breaker.accounts.succeeded(account)
        bench.forgive(account)
        detours.forgive(account)
        bench.has_served(account, model)
    elif trail.ended in BROKEN_OFF or trail.is_upstream_silent:
        _failed(account, pool)
        if trail.ended is Ended.ERROR_IN_STREAM and trail.error == "rate_limit_error":
            bench.penalise(account, timezone.now())


def reset() -> None:
    """Forget everything (for tests)."""
    breaker.reset()
    budget.reset()
    ramp.reset()
    detours.reset()
    bench.reset()
    news.reset()
    dealt.reset()
    quota.reset()
    line.reset()


def _ease_others(account: int, pool: Pool) -> None:
    now = timezone.now()
    for member in pool.members:
        if member.id != account and member.is_usable(now):
            ramp.ease(member.id)


def _failed(account: int, pool: Pool) -> None:
    now = timezone.now()
    able = [member.id for member in pool.members if member.is_usable(now)]
    seconds = breaker.accounts.failed(account, able)
    if seconds is not None:
        effects.rest_alone(account, seconds, now)
        ramp.restart(account)
