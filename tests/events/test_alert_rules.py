"""Rules: which events they ask for, and when one comes too soon after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from events import rules

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@dataclass
class Asks:
    kinds: list[str]
    subjects: list[str] = field(default_factory=list)


@dataclass
class Happened:
    kind: str
    subject: str = "account:7"


@pytest.mark.parametrize(
    ("kinds", "subjects", "kind", "wanted"),
    [
        (["account.limit"], [], "account.limit", True),
        (["account.limit"], [], "account.limits", False),
        (["account.*"], [], "account.limit", True),
        (["account.*"], [], "pool.exhausted", False),
        (["pool.*", "account.reject"], [], "account.reject", True),
        (["*"], [], "anything", True),
        (["*"], ["account:7"], "account.limit", True),
        (["*"], ["account:77"], "account.limit", False),
        (["*"], ["account:*"], "account.limit", True),
        (["*"], ["key:*", "pool"], "account.limit", False),
        ([], [], "account.limit", False),
        (["ACCOUNT.LIMIT"], [], "account.limit", False),
    ],
)
def test_a_rule_asks_by_patterns_of_kind_and_subject(
    kinds: list[str], subjects: list[str], kind: str, wanted: bool
) -> None:
    assert rules.matches(Asks(kinds, subjects), Happened(kind)) is wanted


@pytest.mark.parametrize(
    ("ago", "throttled"), [(0, True), (299, True), (300, False), (301, False), (-1, True)]
)
def test_an_alert_soon_after_another_is_held_back(ago: float, throttled: bool) -> None:
    assert rules.is_throttled(NOW - timedelta(seconds=ago), NOW, 300) is throttled


def test_without_a_throttle_nothing_is_held_back() -> None:
    assert not rules.is_throttled(NOW, NOW, 0)
