"""What the holder of a relay key may know: the limits of that key, and how they stand."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from django.http import HttpRequest
from django.utils import timezone
from ninja import Field, Router, Schema
from ninja.errors import AuthenticationError, HttpError
from ninja.security import HttpBearer

from lib import peer
from lib.problems import documented
from sessions_limit import caps, keys, presence, session_listing, showing, terms
from sessions_limit.keys import Key
from sessions_limit.keytext import PREFIX
from sessions_limit.scopes import ANY
from sessions_limit.standing import Standing, standing

INVALID = "Invalid relay key. Ask the operator of this relay for a key."
TWO_KEYS = "The headers name two different keys; send one."
NOT_FROM_HERE = "This key may not be used from this address."

router = Router(tags=["me"])


class RelayKey(HttpBearer):
    """A relay key, as clients send it to the relay; nothing else opens this."""

    def __call__(self, request: HttpRequest) -> Key:
        """Return the key that was sent; refuse anybody else."""
        return self.authenticate(request, _shown(request))

    def authenticate(self, request: HttpRequest, token: str) -> Key:
        """Return the key; it holds here what holds on the relay."""
        key = keys.recognise(token)
        if key is None:
            raise AuthenticationError(message=INVALID)
        if key.networks and not peer.is_within(_address(request), key.networks):
            raise HttpError(403, NOT_FROM_HERE)
        return key


class LimitsOut(Schema):
    """The most at a time and in a minute; null: no limit."""

    sessions: int | None
    in_flight: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None


class BudgetOut(Schema):
    """What may be spent in a period, and how much of it was."""

    period: Literal["day", "week", "month"]
    unit: Literal["tokens", "usd"]
    most: float
    used: float
    left: float = Field(description="never below 0")
    resets_at: datetime


class MeOut(Schema):
    """The key that was sent."""

    name: str
    expires_at: datetime | None = Field(description="of the secret that was sent")
    models: list[str] = Field(description="patterns of the models it may use; empty: all")
    networks: list[str] = Field(description="from which it may be used; empty: from anywhere")
    limits: LimitsOut
    budgets: list[BudgetOut]
    time_zone: str = Field(description="whose days, weeks and months the budgets follow")
    sessions: int = Field(description="open now")
    in_flight: int = Field(description="requests under way, as of ten seconds ago at most")


@router.get("", response={200: MeOut, **documented(403)}, auth=RelayKey())
def show_me(request: HttpRequest) -> MeOut:
    """Show the relay key that is sent: its limits, what is used of them, and when they reset.

    Sent as to the relay: by `Authorization: Bearer`, `x-api-key` or `x-relay-key`.
    """
    key: Key = request.auth  # type: ignore[attr-defined]
    names = session_listing.names_of(showing.found(key=key.id))
    under = session_listing.under_way(names, presence.read())
    return MeOut(
        name=key.name,
        expires_at=key.expires_at,
        models=list(key.models),
        networks=[str(network) for network in key.networks],
        limits=_limits(key),
        budgets=[_budget(one) for one in standing(key, timezone.now())],
        time_zone=key.time_zone,
        sessions=under.sessions,
        in_flight=under.in_flight,
    )


def _limits(key: Key) -> LimitsOut:
    sessions, in_flight = (
        caps.most_sessions(key.max_sessions),
        caps.most_in_flight(key.max_in_flight),
    )
    return LimitsOut(
        sessions=None if sessions == ANY else sessions,
        in_flight=None if in_flight == ANY else in_flight,
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
    )


def _budget(one: Standing) -> BudgetOut:
    unit: Literal["tokens", "usd"] = "usd" if one.unit == "cost" else "tokens"
    share = terms.MICRO if unit == "usd" else 1
    return BudgetOut(
        period=one.period,
        unit=unit,
        most=one.most / share,
        used=one.used / share,
        left=max(0, one.most - one.used) / share,
        resets_at=one.resets_at,
    )


def _shown(request: HttpRequest) -> str:
    """Return the key that was sent, "" for none; two different ones are refused.

    Beside `x-relay-key` the others may hold a login of the client's own.
    """
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    sent = {bearer.strip()} if scheme.lower() == "bearer" else set()
    sent.add(request.headers.get("x-api-key", "").strip())
    if beside := request.headers.get("x-relay-key", "").strip():
        sent = {text for text in sent if text.startswith(PREFIX)} | {beside}
    sent.discard("")
    if len(sent) > 1:
        raise HttpError(400, TWO_KEYS)
    return sent.pop() if sent else ""


def _address(request: HttpRequest) -> str:
    scope = getattr(request, "scope", None)
    return peer.of(scope or {"client": (request.META.get("REMOTE_ADDR", ""), 0), "headers": []})
