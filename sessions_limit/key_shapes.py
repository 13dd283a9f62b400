"""What the admin API says of a relay key, and what it takes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from ninja import Field, Schema

from events.api import Moment
from lib.shapes import Refusing
from sessions_limit import issuing, terms
from sessions_limit.models import ClientKey

State = Literal["active", "disabled", "expired", "revoked"]
MOST_HOURS = int(issuing.LONGEST_OVERLAP.total_seconds() // 3600)
Count = Annotated[int, Field(ge=1, le=terms.LARGEST)]
Tokens = Annotated[int, Field(ge=0, le=terms.MOST_TOKENS)]
Usd = Annotated[float, Field(ge=0, le=terms.MOST_USD, allow_inf_nan=False)]
Hours = Annotated[
    float, Field(ge=0, le=MOST_HOURS, allow_inf_nan=False, description="0: it ends at once")
]
Words = list[str]
# A word of JSON; strictness would ask for the moment itself.
Until = Annotated[Moment, Field(strict=False)]


class KeyOut(Schema):
    """One relay key as an operator sees it; never the key itself."""

    id: int
    name: str
    owner: str
    hint: str = Field(description="the key's last characters")
    state: State
    enabled: bool
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    previous_until: datetime | None = Field(
        description="until then the secret before the last rotation opens the relay too"
    )
    last_used_at: datetime | None
    last_addresses: list[str] = Field(description="the last five it was used from, newest first")
    labels: list[str] = Field(description="of the accounts it may use; empty: all")
    model_patterns: list[str] = Field(description="of the models it may use; empty: all")
    networks: list[str] = Field(description="from which it may be used; empty: from anywhere")
    pinned_account: int | None
    passthrough: bool
    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_in_flight: int | None
    max_sessions: int | None = Field(description="-1: any number; null: as the relay is set")
    tokens_per_day: int | None
    tokens_per_week: int | None
    tokens_per_month: int | None
    usd_per_day: float | None
    usd_per_week: float | None
    usd_per_month: float | None
    time_zone: str


class KeyMade(KeyOut):
    """A key with its secret, which is in this one answer only."""

    key: str


class KeyPage(Schema):
    """Keys by id; `next` is the `cursor` of the page that follows, null on the last."""

    items: list[KeyOut]
    next: int | None


class Terms(Refusing):
    """What a key may be used for, and how much; null takes a limit away."""

    owner: str | None = Field(None, max_length=terms.LONGEST_NAME)
    expires_at: Until | None = Field(None, description="ahead; null: never")
    labels: Words | None = Field(None, description="20 short words at most")
    model_patterns: Words | None = Field(None, description="`*` and `?` stand for anything")
    networks: Words | None = Field(None, description="such as 10.0.0.0/8")
    pinned_account: int | None = Field(None, description="the one account that serves it")
    passthrough: bool | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    max_in_flight: Count | None = None
    max_sessions: int | None = Field(None, ge=-1, le=terms.LARGEST, description="-1: any number")
    tokens_per_day: Tokens | None = None
    tokens_per_week: Tokens | None = None
    tokens_per_month: Tokens | None = None
    usd_per_day: Usd | None = Field(None, description="0: nothing may be spent")
    usd_per_week: Usd | None = None
    usd_per_month: Usd | None = None
    time_zone: str | None = Field(None, max_length=64, description="whose days and weeks these are")


class KeyIn(Terms):
    """A new key."""

    name: str = Field(max_length=terms.LONGEST_NAME)


class KeyPatch(Terms):
    """What shall change; what is left out stays."""

    name: str | None = Field(None, max_length=terms.LONGEST_NAME)
    enabled: bool | None = None


class RotateIn(Refusing):
    """How long the old secret still opens the relay."""

    overlap_hours: Hours = issuing.OVERLAP.total_seconds() / 3600


def described(key: ClientKey) -> KeyOut:
    """Return a key as the API tells it."""
    given = terms.of(key)
    columns = {name: getattr(key, name) for name in KeyOut.model_fields if name not in given}
    return KeyOut(**given | columns | {"previous_until": key.overlaps_until})


def made(key: ClientKey, text: str) -> KeyMade:
    """Return a key as the API tells it once, with its secret."""
    return KeyMade(**described(key).dict(), key=text)
