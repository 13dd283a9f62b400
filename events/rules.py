"""Whether a rule asks for an event, and whether it was heard of too recently; pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Protocol

# What an operator must do something about, or will be asked about.
NEEDS_SOMEBODY = (
    "account.reject",
    "account.near_limit",
    "account.grant_ending",
    "account.idle",
    "account.limit",
    "account.refresh_failed",
    "account.organization_changed",
    "key.budget_*",
    "pool.*",
    "limiter.degraded",
    "alert.failed",
    "channel.disabled",
)


class Patterns(Protocol):
    """What a rule asks for; no patterns of subjects means all."""

    @property
    def kinds(self) -> Sequence[str]: ...
    @property
    def subjects(self) -> Sequence[str]: ...


class Happening(Protocol):
    """What an event is called and whom it concerns."""

    @property
    def kind(self) -> str: ...
    @property
    def subject(self) -> str: ...


def matches(rule: Patterns, event: Happening) -> bool:
    """Tell whether a rule asks for an event; `*` in a pattern stands for any text."""
    return _any(rule.kinds, event.kind) and (
        not rule.subjects or _any(rule.subjects, event.subject)
    )


def is_throttled(last_at: datetime, now: datetime, seconds: float) -> bool:
    """Tell whether the last alert is so near that this one is held back.

    Near on either side: of two jobs at once, one may have read its clock before the other wrote.
    """
    return abs((now - last_at).total_seconds()) < seconds


def _any(patterns: Sequence[str], text: str) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)
