"""Everything the simulator knows: people, API keys, grants and tokens, all in memory."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batches import Batch
    from .files import File

Clock = Callable[[], float]

ACCESS_TTL = 28800
GRANT_TTL = 30 * 86400
SETUP_TTL = 31536000
PEOPLE = ("ada", "grace", "linus")
PLANS = (
    ("claude_max", "default_claude_max_20x"),
    ("claude_pro", "default_claude_ai"),
    ("claude_team", "default_raven"),
)


@dataclass(slots=True)
class Window:
    """One rate-limit window: a share of 0-1, a verdict, and the epoch second of its reset."""

    utilization: float
    status: str
    reset: int


@dataclass(slots=True)
class Allowance:
    """What an API key may use in a minute; `reset` is an epoch second."""

    limit: int
    remaining: int
    reset: int


@dataclass(slots=True)
class Account:
    """One simulated person with a subscription."""

    email: str
    account_uuid: str
    organization_uuid: str
    organization_name: str
    organization_type: str
    rate_limit_tier: str
    subscription_status: str = "active"
    claude_code_only: bool = False
    disabled: bool = False
    access_ttl: int = ACCESS_TTL
    windows: dict[str, Window] = field(default_factory=dict)
    overage_in_use: bool = False
    served: int = 0
    in_flight: int = 0


@dataclass(slots=True)
class ApiKey:
    """One key of the pay-per-use API."""

    name: str
    key: str
    organization_uuid: str
    allowances: dict[str, Allowance] = field(default_factory=dict)
    served: int = 0
    in_flight: int = 0


@dataclass(slots=True)
class Grant:
    """One login: the family of tokens that lives and dies together."""

    id: str
    email: str
    scopes: tuple[str, ...]
    created_at: float
    ends_at: float
    revoked: bool = False
    refreshes: int = 0


@dataclass(slots=True)
class Token:
    """One access token, kept after its end so that its use gets the right error."""

    value: str
    kind: str
    grant: Grant
    expires_at: float


@dataclass(slots=True)
class RefreshToken:
    """One refresh token; `used` marks the ones that were rotated away."""

    grant: Grant
    used: bool = False


@dataclass(slots=True)
class Code:
    """One authorization code with everything the exchange must repeat."""

    email: str
    params: dict[str, str]
    issued_at: float
    grant: Grant | None = None


@dataclass(slots=True)
class World:
    """The whole state; `clock` gives epoch seconds."""

    clock: Clock
    people: int = 0
    accounts: dict[str, Account] = field(default_factory=dict)
    api_keys: dict[str, ApiKey] = field(default_factory=dict)
    grants: list[Grant] = field(default_factory=list)
    tokens: dict[str, Token] = field(default_factory=dict)
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    cached_prefixes: set[tuple[str, str]] = field(default_factory=set)
    batches: dict[str, Batch] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._add_people()

    def reset(self, *, keep_accounts: bool = False) -> None:
        """Go back to the start state; kept accounts keep their uuids and lose all else."""
        kept = list(self.accounts.values()) if keep_accounts else []
        for table in (
            self.accounts,
            self.api_keys,
            self.tokens,
            self.refresh_tokens,
            self.codes,
            self.batches,
            self.files,
        ):
            table.clear()
        self.grants.clear()
        self.ledger.clear()
        self.cached_prefixes.clear()
        for account in kept:
            account.access_ttl, account.served, account.windows = ACCESS_TTL, 0, {}
            account.overage_in_use = False
            self.accounts[account.email] = account
        if not keep_accounts:
            self._add_people()

    def put_account(self, email: str, **options: Any) -> Account:
        """Create the person, or change the given fields of an existing one."""
        account = self.accounts.get(email)
        if account is None:
            plan, tier = PLANS[len(self.accounts) % len(PLANS)]
            account = Account(
                email=email,
                account_uuid=str(uuid.uuid4()),
                organization_uuid=str(uuid.uuid4()),
                organization_name=f"{email}'s Organization",
                organization_type=plan,
                rate_limit_tier=tier,
            )
            self.accounts[email] = account
        for name, value in options.items():
            setattr(account, name, value)
        return account

    def put_api_key(self, name: str, key: str | None, organization_uuid: str | None) -> ApiKey:
        """Create or replace the API key of that name."""
        for old in [k for k in self.api_keys.values() if k.name == name]:
            del self.api_keys[old.key]
        value = key or new_secret("sk-ant-api03-")
        made = ApiKey(name, value, organization_uuid or str(uuid.uuid4()))
        self.api_keys[value] = made
        return made

    def log_token_call(self, grant_type: str, account: str | None, outcome: str) -> None:
        """Write one line into the ledger of the token endpoint."""
        self.ledger.append(
            {
                "grant_type": grant_type,
                "account": account,
                "outcome": outcome,
                "at": self.clock(),
            }
        )

    def _add_people(self) -> None:
        for number in range(1, self.people + 1):
            name = PEOPLE[number - 1] if number <= len(PEOPLE) else f"user{number}"
            self.put_account(f"{name}@example.com")


def new_secret(prefix: str) -> str:
    """Return a random token with the real prefix."""
    return prefix + secrets.token_urlsafe(48)
