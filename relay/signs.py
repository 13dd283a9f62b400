"""What in the facts of an answer gives a row away: the conditions of the decision table; pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from providers.base import WHOLE_ACCOUNT, Limits
from relay.facts import Facts, Failed

Sign = Callable[[Facts], bool]

LONGEST_COOLDOWN = timedelta(hours=1)


def rejected(limits: Limits) -> set[str]:
    """Return the names of the windows that are spent."""
    return {window.name for window in limits.windows if window.status == "rejected"}


def says(*texts: str) -> Sign:
    """The error's text holds one of these (lower case)."""
    return lambda facts: any(text in facts.message for text in texts)


def status(*statuses: int) -> Sign:
    """The answer has one of these statuses."""
    return lambda facts: facts.status in statuses


def every(*signs: Sign) -> Sign:
    """All of these hold."""
    return lambda facts: all(sign(facts) for sign in signs)


def failed(kind: Failed) -> Sign:
    """The attempt brought no answer, in this way."""
    return lambda facts: facts.failed is kind


def is_edge(facts: Facts) -> bool:
    """An answer of the network in front of the API: HTML, or an error without a request id."""
    return facts.is_json is False or (facts.error == "forbidden" and not facts.has_id)


def is_spent(facts: Facts) -> bool:
    """A window of the whole account is spent, or the answer says so without naming one."""
    limits = facts.limits
    named = any(window.status is not None for window in limits.windows)
    whole = bool(rejected(limits) & WHOLE_ACCOUNT)
    return whole or (limits.status == "rejected" and not named)


def is_model_spent(facts: Facts) -> bool:
    """A window of some models only is spent."""
    return any(name not in WHOLE_ACCOUNT for name in rejected(facts.limits))


def is_overage_only(facts: Facts) -> bool:
    """Refused with every window open: only paid extra usage is spent, which says nothing more."""
    limits = facts.limits
    return limits.status == "rejected" and bool(limits.windows) and not rejected(limits)


def is_long(facts: Facts) -> bool:
    """Told to wait longer than a cool-down may be."""
    longest = LONGEST_COOLDOWN.total_seconds()
    return not facts.limits.is_unified and (facts.limits.retry_after or 0) > longest


def is_timed(facts: Facts) -> bool:
    """Told how long to wait, and nothing of windows."""
    limits = facts.limits
    timed = limits.retry_after is not None or limits.classic_spent_until is not None
    return timed and not limits.is_unified


DISABLED = says(
    "organization has been disabled",
    "oauth authentication is currently not allowed",
)
NO_CREDIT = says("credit balance is too low", "specified api usage limits")
NOT_CLAUDE_CODE = says("only authorized for use with claude code", "third-party apps now draw")
FEATURE = says("long context", "fast mode", "fast request", "extra usage", "usage credits")
SPEND_CAPS = ("enforced_spend_limit_reached", "contract_spend_limit_reached")
