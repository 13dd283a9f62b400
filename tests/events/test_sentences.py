"""Each event is one plain sentence that a phone can show."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from events import naming, sentences
from events.sentences import SENTENCES, say

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
SOURCES = ("accounts", "sessions_limit", "usage", "relay", "proxy_project", "events")
# Kinds that are put together at run time, or come with another name than the call's first word.
RECORDED = re.compile(r"journal\.record\(\s*\"([a-z_]+\.[a-z_]+)\"")


@pytest.mark.parametrize(
    ("kind", "subject", "data", "text"),
    [
        (
            "account.limit",
            "account:7",
            {
                "name": "Ada",
                "reason": "limit_reached (5h)",
                "limited_until": "2026-11-20T15:00:00+00:00",
            },
            "Account Ada is rate limited until 15:00 UTC: limit_reached (5h).",
        ),
        (
            "account.limit",
            "account:7",
            {"reason": "billing", "limited_until": "2026-11-21T15:00:00+01:00"},
            "Account 7 is rate limited until 21 Nov 14:00 UTC: billing.",
        ),
        ("account.limit", "account:7", {"reason": "x"}, "Account 7 is rate limited: x."),
        (
            "pool.exhausted",
            "pool",
            {"counts": {"rate_limited": 2, "invalid": 0}, "returns_at": None},
            "No account can serve requests (2 rate limited). None returns by itself.",
        ),
        (
            "pool.exhausted",
            "pool",
            {"counts": {"rate_limited": 2}, "returns_at": "2026-11-20T15:00:00+00:00"},
            "No account can serve requests (2 rate limited). The next one returns 15:00 UTC.",
        ),
        ("key.create", "key:1", {"name": "laptop"}, "Key laptop was created by ada."),
        ("some.thing", "key:1", {"reason": "why not"}, "Key 1: some.thing (why not)."),
        (
            "account.poll_failed",
            "account:7",
            {"why": "status 500", "attempt": 1, "seconds": 600},
            "Account 7 could not be asked about its use: status 500.",
        ),
        (
            "account.near_limit",
            "account:7",
            {"utilization": 0.904, "window": "5h", "reset_at": "2026-11-20T15:00:00+00:00"},
            "Account 7 has used 90 % of its window 5h (resets 15:00 UTC).",
        ),
        ("some.thing", "", {}, ": some.thing."),
    ],
)
def test_an_event_in_words(kind: str, subject: str, data: dict[str, Any], text: str) -> None:
    assert say(kind, subject, data, by="ada", at=AT) == text


@pytest.mark.parametrize(
    "value",
    [
        None,
        "{who.__class__}{0}%s",
        "\u202e\x00\n",
        "x" * 5000,
        {"a": [1, {"b": None}], "\n": "x" * 999},
        [[1]],
        1e308,
        True,
        "9999-99-99T99:99",
        "0001-01-01T00:00+23:59",
    ],
)
def test_whatever_an_event_holds_the_sentence_is_one_short_line(value: Any) -> None:
    for kind in [*SENTENCES, "never.heard.of"]:
        names = re.findall(r"{(\w+)}", "".join(SENTENCES.get(kind, ())))
        data = dict.fromkeys([*names, "utilization"], value)

        text = say(kind, f"account:{value}", data, by=str(value), at=AT)

        assert 0 < len(text) <= sentences.LONGEST
        assert text.isprintable()


def test_every_event_that_is_recorded_has_a_sentence() -> None:
    root = Path(__file__).parents[2]
    recorded = {
        kind
        for app in SOURCES
        for path in (root / app).rglob("*.py")
        for kind in RECORDED.findall(path.read_text(encoding="utf-8"))
    }

    assert recorded > {"key.create", "channel.created"}
    assert recorded - SENTENCES.keys() == set()


def test_every_move_of_an_account_has_a_sentence() -> None:
    from accounts.states import Trigger

    assert {f"account.{trigger}" for trigger in Trigger} <= SENTENCES.keys()


@pytest.mark.django_db
def test_subjects_are_called_by_their_names_where_they_have_one() -> None:
    from accounts.models import Account

    account = Account.objects.create(name="Ada", kind="api_key")

    assert naming.names(
        [
            account.subject,
            "account:999",
            "account:x",
            "channel:x",
            "pool",
            "key:",
            f"key:{9**30}",
            "user:-1",
        ]
    ) == {account.subject: "Ada"}
