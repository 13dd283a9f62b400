"""What the admin API says of an account, and what it takes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from django.utils import timezone
from ninja import Field, Schema

from accounts.cards import Card, Step, is_usable
from accounts.models import Account, LimitWindow
from accounts.states import Auth, Kind, Status, is_ahead
from lib import proxies
from lib.crypto import DecryptError
from lib.outside import Forbidden
from lib.shapes import Refusing

Secret = Annotated[str, Field(min_length=1, max_length=4096, description="never shown again")]
Name = Annotated[str, Field(max_length=100)]
Proxy = Annotated[
    str, Field(max_length=500, description="its own outbound proxy, http or socks5; empty: none")
]


# A word of JSON; strictness would ask for the member itself.
Manner = Annotated[Auth, Field(strict=False)]


class WindowOut(Schema):
    """The last thing an answer said about one limit window."""

    name: str
    status: str
    utilization: float | None = Field(
        description="a fraction: 1.0 is all of it; never a percentage"
    )
    limit: int | None
    remaining: int | None
    reset_at: datetime | None
    observed_at: datetime
    is_over: bool = Field(description="its reset has passed: what is said here holds no more")


class WindowAheadOut(WindowOut):
    """A limit window and how it goes on, as far as that can be told."""

    rate_per_hour: float | None = Field(description="a fraction of the window per hour")
    runs_out_at: datetime | None = Field(description="when it is spent, if it is before its reset")


class TokenOut(Schema):
    """The account's login, without its secrets."""

    expires_at: datetime | None
    refresh_failures: int
    refresh_not_before: datetime | None
    grant_started_at: datetime | None
    grant_ends_at: datetime | None = Field(description="when the login itself ends")
    is_end_assumed: bool = Field(description="nobody said so: it follows from when it began")


class SettingsOut(Schema):
    """How the pool uses the account."""

    priority: int
    weight: int
    max_in_flight: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    labels: list[str]
    never_overage: bool
    leave_at_percent: int | None
    pinned: bool


class EndpointOut(Schema):
    """Where a compatible account is, and how it is spoken to."""

    preset: str
    base_url: str
    auth: str
    forwards_betas: bool
    model_map: dict[str, str]


class AccountOut(Schema):
    """One account as an operator sees it; never its secrets."""

    id: int
    name: str
    kind: Kind
    status: Status
    state: str = Field(description="the status in words; “cooling down” while it rests")
    reason: str
    sentence: str = Field(description="why it is there, in words; empty when all is well")
    step: Step = Field(description="what heals it; empty when nothing needs to be done")
    heals: str = Field(description="the same in words")
    is_usable: bool
    status_changed_at: datetime
    limited_until: datetime | None
    cooldown_until: datetime | None
    probe_at: datetime | None
    email: str
    account_uuid: str
    organization_uuid: str
    organization_name: str
    plan: str
    tier: str
    subscription_status: str
    scopes: list[str]
    token: TokenOut
    settings: SettingsOut
    endpoint: EndpointOut | None
    proxy: str = Field(description="its own proxy, without its password; empty without one")
    windows: list[WindowOut]
    created_at: datetime
    last_used_at: datetime | None
    profile_checked_at: datetime | None
    usage_checked_at: datetime | None


class AccountPage(Schema):
    """Accounts by id; `next` is the `cursor` of the page that follows, null on the last."""

    items: list[AccountOut]
    next: int | None


class SecretIn(Refusing):
    """An API key or a setup token."""

    kind: Literal["api_key", "setup_token"]
    name: Name
    secret: Secret
    proxy: Proxy = ""


class CredentialsFileIn(Refusing):
    """The text of Claude Code's credentials file; the login is then held twice."""

    kind: Literal["credentials_file"]
    name: Name = Field("", description="empty: the login's e-mail address")
    secret: str = Field(min_length=1, max_length=64 * 1024, description="the whole file")
    proxy: Proxy = ""


class CompatibleIn(Refusing):
    """An endpoint that speaks the Messages API; what is left out comes from the preset."""

    kind: Literal["compatible"]
    name: Name
    preset: str = Field("", max_length=32)
    base_url: str = Field("", max_length=500)
    auth: Manner | None = None
    secret: str = Field("", max_length=4096)
    forwards_betas: bool | None = None
    model_map: dict[str, str] | None = None
    proxy: Proxy = ""


AccountIn = Annotated[SecretIn | CredentialsFileIn | CompatibleIn, Field(discriminator="kind")]


class AccountPatch(Refusing):
    """What shall change; what is left out stays."""

    name: str | None = Field(None, max_length=100)
    priority: int | None = Field(None, ge=0, le=1000)
    weight: int | None = Field(None, ge=1, le=100)
    max_in_flight: int | None = Field(None, ge=1, le=10_000, description="null: no limit")
    requests_per_minute: int | None = Field(None, ge=1, description="null: no limit")
    tokens_per_minute: int | None = Field(None, ge=1, description="null: no limit")
    labels: list[str] | None = Field(None, description="20 short words at most")
    never_overage: bool | None = None
    leave_at_percent: int | None = Field(None, ge=1, le=100, description="null: use all of it")
    pinned: bool | None = None
    base_url: str | None = Field(None, max_length=500, description="needs the secret again")
    auth: Manner | None = None
    forwards_betas: bool | None = None
    model_map: dict[str, str] | None = None
    secret: Secret | None = None
    proxy: Proxy | None = None


class SampleOut(Schema):
    """How far a window was used in the minute that began at `at`."""

    at: datetime
    utilization: float = Field(description="a fraction: 1.0 is all of it")
    status: str
    reset_at: datetime | None


class Series(Schema):
    """Samples of one window, oldest first; a minute of which nothing is known has none."""

    window: str
    items: list[SampleOut]


class FlowOut(Schema):
    """A login that was begun: its owner opens `url`, approves, and gets a code to hand in."""

    flow_id: str
    url: str
    expires_at: datetime


class FlowIn(Refusing):
    """The code of a login; `name` is for a new account only."""

    flow_id: str = Field(max_length=64)
    pasted: str = Field(max_length=4096)
    name: Name = Field("", description="empty: the login's e-mail address")


class DisableIn(Refusing):
    """How to take an account out."""

    cut: bool = Field(False, description="end its live streams too")


class CheckOut(Schema):
    """What one free request with the account's credential came to."""

    ok: bool
    status: int = Field(description="of the upstream's answer; 0 when none came")
    ms: int
    sentence: str


def described(card: Card, now: datetime | None = None) -> AccountOut:
    """Return an account as the API tells it."""
    now = now or timezone.now()
    account = card.account
    columns = {
        name: getattr(account, name) for name in AccountOut.model_fields if hasattr(account, name)
    }
    del columns["windows"]
    return AccountOut(
        **columns
        | {
            "state": card.state,
            "sentence": card.why,
            "step": card.step,
            "heals": card.heals,
            "is_usable": is_usable(account, now),
            "scopes": account.scopes.split(),
            "token": _token(card),
            "settings": {name: getattr(account, name) for name in SettingsOut.model_fields},
            "endpoint": _endpoint(card),
            "proxy": _proxy(account),
            "windows": [window(row, now) for row in account.windows.all()],
        }
    )


def window(row: LimitWindow, now: datetime) -> WindowOut:
    """Return a limit window as the API tells it."""
    over = row.reset_at is not None and not is_ahead(row.reset_at, now)
    names = WindowOut.model_fields.keys() - {"is_over"}
    return WindowOut(is_over=over, **{name: getattr(row, name) for name in names})


def _proxy(account: Account) -> str:
    """Return its proxy without its password, from the row that came with the card."""
    try:
        return proxies.parse(account.egress.url).shown if hasattr(account, "egress") else ""
    except (DecryptError, Forbidden):
        return "unreadable"


def _token(card: Card) -> dict[str, Any]:
    account, credential, end = card.account, card.account.credential, card.ends
    return {
        "expires_at": credential.expires_at if credential else None,
        "refresh_failures": account.refresh_failures,
        "refresh_not_before": account.refresh_not_before,
        "grant_started_at": account.grant_started_at,
        "grant_ends_at": end.at if end else None,
        "is_end_assumed": bool(end and end.is_assumed),
    }


def _endpoint(card: Card) -> dict[str, Any] | None:
    if card.account.kind != Kind.COMPATIBLE:
        return None
    return {name: getattr(card.account, name) for name in EndpointOut.model_fields}
