"""The evidence of an event, in words."""

from __future__ import annotations

from typing import Any

import pytest

from events import evidence

MOVE = {"old": "active", "new": "rate_limited"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, ""),
        (MOVE | {"status": 429, "reason": ""}, "active → rate limited · status: 429"),
        ({"old": "active", "new": "active", "grant": 2}, "grant: 2"),
        (
            {"old": {"priority": 50, "labels": []}, "new": {"priority": 10, "labels": ["a"]}},
            'priority: 50 → 10 · labels: nothing → ["a"]',
        ),
        ({"limited_until": "2026-11-20T15:40:37+00:00"}, "limited until: 20 Nov 15:40 UTC"),
        ({"at": "2026-99-99T15:40"}, "at: 2026-99-99T15:40"),
        ({"ok": False, "utilization": 0.9100001}, "ok: no · utilization: 0.91"),
        ({"reason": "limit_reached (7d_oi)"}, "reason: limit reached (7d_oi)"),
        ({"name": "a\u202eb"}, "name: a b"),
    ],
)
def test_fields_are_said_in_words(data: dict[str, Any], said: str) -> None:
    assert evidence.say(data) == said
