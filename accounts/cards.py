"""What the console says about an account: its state in words and the step that heals it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from accounts import grants
from accounts.models import Account, LimitWindow
from accounts.reasons import Step as Step
from accounts.reasons import heals, in_words
from accounts.states import CUT, Kind, Status, is_ahead

LABELS = {
    Status.ACTIVE: "active",
    Status.INACTIVE: "inactive",
    Status.RATE_LIMITED: "rate limited",
    Status.INVALID: "invalid",
}
KINDS = {
    Kind.OAUTH: "Claude login",
    Kind.SETUP_TOKEN: "Setup token",
    Kind.API_KEY: "API key",
    Kind.COMPATIBLE: "Compatible endpoint",
}
WINDOWS = {
    "5h": "5 hours",
    "7d": "7 days",
    "7d_oi": "7 days, Fable",
    "7d_opus": "7 days, Opus",
    "7d_sonnet": "7 days, Sonnet",
    "overage": "Extra usage",
    "requests": "Requests a minute",
    "tokens": "Tokens a minute",
    "input_tokens": "Input tokens a minute",
    "output_tokens": "Output tokens a minute",
}
ALWAYS = ("5h", "7d")


@dataclass(frozen=True, slots=True)
class Window:
    """One limit window as a bar; `utilization` is None when nothing is known of it now.

    `limit` and `remaining` are the counts of an API key's minute. The rate and the end are given
    only where they were foretold (`prospects`).
    """

    name: str
    label: str
    utilization: float | None = None
    reset_at: datetime | None = None
    is_over: bool = False
    is_rejected: bool = False
    limit: int | None = None
    remaining: int | None = None
    rate_per_hour: float | None = None
    runs_out_at: datetime | None = None

    @property
    def percent(self) -> int:
        """How much is used, in percent."""
        return round(100 * (self.utilization or 0))

    @property
    def value(self) -> str:
        """How much is used, as a bar's value between 0 and 1."""
        return f"{min(max(self.utilization or 0, 0), 1):.3f}"

    @property
    def is_spent(self) -> bool:
        """Whether nothing of it is left."""
        return self.is_rejected or (self.utilization or 0) >= 1

    @property
    def lasts(self) -> bool:
        """Whether it is used so slowly that it is reset before it runs out."""
        return bool(self.rate_per_hour) and self.runs_out_at is None and not self.is_spent


@dataclass(frozen=True, slots=True)
class Card:
    """An account as the console shows it."""

    account: Account
    kind: str
    state: str
    tone: str
    why: str
    step: Step
    until: datetime | None
    windows: tuple[Window, ...]

    @property
    def organisation(self) -> str:
        """Its organisation, unless that is only the one every person has."""
        name = self.account.organization_name
        return "" if self.account.email and name.startswith(self.account.email) else name

    @property
    def subscription(self) -> str:
        """How its subscription stands, in words."""
        return self.account.subscription_status.replace("_", " ")

    @property
    def ends(self) -> grants.End | None:
        """When its login ends."""
        return grants.end_of(self.account)

    @property
    def heals(self) -> str:
        """What an operator can do, in a sentence; empty when there is nothing to do."""
        return heals(self.step, self.account.reason)

    @property
    def is_refreshable(self) -> bool:
        """Whether its token can be refreshed at all."""
        return self.account.kind == Kind.OAUTH


def load(now: datetime | None = None, pk: int | None = None) -> list[Card]:
    """Return a card for every account that was not removed, or for one; two queries."""
    rows = Account.objects.filter(deleted_at=None).select_related("credential", "egress")
    rows = rows if pk is None else rows.filter(pk=pk)
    rows = rows.defer("credential__access_token", "credential__refresh_token")
    accounts = list(rows.prefetch_related("windows"))
    return [card(account, now) for account in accounts]


def card(account: Account, now: datetime | None = None) -> Card:
    """Say how one account stands at `now`."""
    now = now or timezone.now()
    status = Status(account.status)
    limited = is_ahead(account.limited_until, now)
    cooling = is_ahead(account.cooldown_until, now)
    why, tone, until = in_words(account.reason), status.value, None
    if status is Status.RATE_LIMITED:
        until = account.limited_until
        why = why if limited else "The limit is over; the next request may use it."
    elif status is Status.ACTIVE and cooling:
        why, tone, until = (
            "Resting after a failure; it comes back by itself.",
            "cooling",
            (account.cooldown_until),
        )
    elif status is Status.ACTIVE:
        why = ""
    state = "cooling down" if tone == "cooling" else LABELS[status]
    return Card(
        account=account,
        kind=KINDS[Kind(account.kind)],
        state=state,
        tone=tone,
        why=why,
        step=step(status, Kind(account.kind), account.reason),
        until=until,
        windows=windows(Kind(account.kind), account.windows.all(), now),
    )


def step(status: Status, kind: Kind, reason: str) -> Step:
    """Name the step that heals an account."""
    if status is Status.ACTIVE:
        return Step.NONE
    if status is Status.RATE_LIMITED:
        return Step.WAIT
    if status is Status.INACTIVE:
        return Step.ENABLE
    if reason == "provider_disabled":
        return Step.OWNER
    return Step.RELINK if kind is Kind.OAUTH else Step.REPLACE


def windows(kind: Kind, rows: Iterable[LimitWindow], now: datetime) -> tuple[Window, ...]:
    """Return the bars of an account, the two that every subscription has first."""
    # Every plan's answers say that extra usage is off; only how far it is used is worth a bar.
    seen = {r.name: r for r in rows if r.name != "overage" or r.utilization is not None}
    always = ALWAYS if kind in (Kind.OAUTH, Kind.SETUP_TOKEN) else ()
    names = [*always, *sorted(seen.keys() - set(always))]
    return tuple(_window(name, seen.get(name), now) for name in names)


def count(cards: Sequence[Card]) -> list[tuple[str, str, int]]:
    """Return status, label and how many accounts are in it, for every status."""
    found = Counter(card.account.status for card in cards)
    return [(status.value, LABELS[status], found[status]) for status in Status]


def verdict(cards: Sequence[Card], now: datetime | None = None) -> str:
    """Say in a sentence whether the pool can serve requests."""
    now = now or timezone.now()
    usable = sum(is_usable(card.account, now) for card in cards)
    if not cards:
        return "The pool is empty: requests are refused until an account is linked."
    if not usable:
        return "No account can serve requests now."
    if usable == len(cards):
        return "Every account can serve requests."
    return f"{usable} of {len(cards)} accounts can serve requests."


def is_usable(account: Account, now: datetime) -> bool:
    """Tell whether the relay would choose this account: a limit that has passed is no bar."""
    if account.status == Status.RATE_LIMITED:
        return not is_ahead(account.limited_until, now)
    return account.status == Status.ACTIVE and not is_ahead(account.cooldown_until, now)


def troubled(cards: Sequence[Card]) -> list[Card]:
    """Return the accounts that somebody must heal, then those that wait for a limit to pass.

    What an operator switched off is as it should be.
    """
    found = [card for card in cards if card.step and card.account.reason not in ("admin", CUT)]
    return sorted(found, key=lambda card: card.step is Step.WAIT)


def _window(name: str, row: LimitWindow | None, now: datetime) -> Window:
    label = WINDOWS.get(name, name)
    if row is None:
        return Window(name, label)
    over = row.reset_at is not None and row.reset_at <= now
    return Window(
        name,
        label,
        utilization=None if over else row.utilization,
        reset_at=row.reset_at,
        is_over=over,
        is_rejected=row.status == "rejected" and not over,
        limit=row.limit,
        remaining=None if over else row.remaining,
    )
