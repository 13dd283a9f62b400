"""Which accounts may serve a request, and which of them come first; pure."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from accounts.pool import Member, Pool
from accounts.states import Status
from relay.bench import Bench
from relay.capabilities import Offers
from relay.capabilities import offers as OFFERS
from relay.errors import NotFound, PoolLimited, PoolUnavailable, RelayError
from relay.ramp import Ramp
from relay.ramp import ramp as RAMP
from relay.request import ClientRequest

MOST_NAMED = 30


@dataclass(frozen=True, slots=True)
class Candidates:
    """`first`: where a new session may go; `usable`: where a bound one may stay.

    `skipped` says of every other account why not, as far as it was not tried already.
    """

    first: tuple[int, ...]
    usable: tuple[int, ...]
    skipped: dict[int, str]


def candidates(
    pool: Pool,
    bench: Bench,
    request: ClientRequest,
    now: datetime,
    tried: Collection[int] = (),
    ramp: Ramp = RAMP,
    offers: Offers = OFFERS,
) -> Candidates:
    """Return the accounts that may serve `request` now.

    Requests of other clients than Claude Code prefer accounts whose terms cover them (D07b); an
    account that was refused the model, would cost its owner extra, has a penalty, has only just
    returned and is busy, or has all it may have in flight, comes last. Nobody is excluded by a
    preference.
    """
    usable, skipped = [], {}
    for member in pool.members:
        if member.id in tried:
            continue
        if why := _why_not(member, bench, request, now, offers):
            skipped[member.id] = why
        else:
            usable.append(member)
    first = usable
    if not request.is_claude_code:
        first = [member for member in first if _serves_any_client(member)] or first
    first = [m for m in first if not bench.is_lacking(m.id, request.model, now)] or first
    first = [m for m in first if not bench.is_deferred(m.id, request.model, now)] or first
    first = [member for member in first if not bench.is_penalised(member.id, now)] or first
    first = [member for member in first if ramp.admits(member.id)] or first
    first = [m for m in first if not ramp.is_full(m.id, m.max_in_flight)] or first
    return Candidates(tuple(m.id for m in first), tuple(m.id for m in usable), skipped)


def _why_not(
    member: Member, bench: Bench, request: ClientRequest, now: datetime, offers: Offers
) -> str:
    """Return why an account cannot serve now; empty when it can."""
    if not is_open_to(member, request):
        return "not in the key's group"
    if not offers.has(member, request.model):
        return "does not have the model"
    if not member.is_usable(now):
        return "cooling down" if member.status is Status.ACTIVE else member.status.value
    return "held" if _held_until(member, bench, request, now) else ""


def nobody(
    pool: Pool, bench: Bench, request: ClientRequest, now: datetime, offers: Offers = OFFERS
) -> RelayError:
    """Return what to tell a client whom no account can serve: when to come back, if ever."""
    group = [member for member in pool.members if is_open_to(member, request)]
    if is_unknown(pool, request, offers):
        return NotFound(_which(request.model, offers.all(group)))
    able = [member for member in group if offers.has(member, request.model)]
    returns = [time for member in able if (time := _returns_at(member, bench, request, now))]
    if returns:
        seconds = math.ceil((min(returns) - now).total_seconds())
        return PoolLimited(retry_after=max(1, seconds))
    if not pool.members:
        return PoolUnavailable("No account is linked to this relay yet.", retry_after=30)
    if not group:
        return PoolUnavailable("No account of this relay may serve this key.", retry_after=30)
    return PoolUnavailable(retry_after=30)


def is_unknown(pool: Pool, request: ClientRequest, offers: Offers = OFFERS) -> bool:
    """Tell whether none of the accounts that may serve this key has the model, whatever state."""
    group = [member for member in pool.members if is_open_to(member, request)]
    return bool(group) and not any(offers.has(member, request.model) for member in group)


def _which(model: str, models: list[str]) -> str:
    """Name the model that nobody has, and those that may be used."""
    more = f" and {len(models) - MOST_NAMED} more" if len(models) > MOST_NAMED else ""
    return f"model: {model}. You may use {', '.join(models[:MOST_NAMED])}{more}."


def _returns_at(
    member: Member, bench: Bench, request: ClientRequest, now: datetime
) -> datetime | None:
    returns = member.returns_at(now)
    if not member.is_usable(now) and returns is None:
        return None
    held = _held_until(member, bench, request, now)
    back = bench.returns_at(member.id, request.model, now)
    return max(filter(None, (held, back, returns)), default=None)


def _held_until(
    member: Member, bench: Bench, request: ClientRequest, now: datetime
) -> datetime | None:
    paused = bench.paused_until(member.id, member.pace, now) if request.spends_quota else None
    held = bench.held_until(member.id, request.model, now)
    return max(filter(None, (held, paused)), default=None)


def suits(member: Member, request: ClientRequest, offers: Offers = OFFERS) -> bool:
    """Tell whether an account has the model, may serve this key, and its terms cover the client."""
    covers = request.is_claude_code or _serves_any_client(member)
    return covers and is_open_to(member, request) and offers.has(member, request.model)


def is_open_to(member: Member, request: ClientRequest) -> bool:
    """Tell whether an account is the one, or in the group, that the key is bound to, if it is."""
    key = request.key
    if key.account is not None and key.account != member.id:
        return False
    return not key.labels or not key.labels.isdisjoint(member.labels)


def _serves_any_client(member: Member) -> bool:
    return member.provider.serves_any_client
