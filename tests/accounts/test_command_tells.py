"""What `manage.py account` tells of one account: show, history, test; and what clear ends."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from accounts import adding, health
from accounts.models import Account, LimitWindow
from events.models import Event
from tests.support.simulator import Simulator

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def key(simulator: Simulator) -> Account:
    return adding.add_secret("api_key", "key", simulator.api_key("key"), by="ada")


@pytest.fixture
def limited(key: Account) -> Account:
    now = timezone.now()
    reset = now + timedelta(hours=2)
    told = {"row": "D16", "answer": "429"}
    health.limit(key.pk, reset, "limit_reached (5h)", observed_at=now, **told)
    LimitWindow.objects.create(
        account=key,
        name="5h",
        status="rejected",
        utilization=1.0,
        reset_at=reset,
        observed_at=now,
    )
    return Account.objects.get()


def text(*words: str) -> str:
    out = io.StringIO()
    call_command("account", *words, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def answer(*words: str) -> Any:
    return json.loads(text(*words, "--json"))


def test_show_says_why_an_account_is_where_it_is_and_what_heals_it(limited: Account) -> None:
    assert limited.limited_until is not None
    until = limited.limited_until.isoformat(timespec="seconds")

    said, told = text("show", "key"), answer("show", "key")

    assert f"is rate limited until {until}." in said
    assert "What its plan allows is spent: the 5-hour window." in said
    assert "clearing it ends the wait now" in said
    assert f"100.0% used, rejected, resets {until}" in said
    assert (told["state"], told["until"]) == ("rate limited", until)
    assert told["windows"][0]["utilization"] == 1.0
    assert told["settings"]["priority"] == 50
    assert "sk-ant" not in said + json.dumps(told)


def test_history_is_the_journal_newest_first_with_its_evidence(limited: Account) -> None:
    first, last = text("history", "key").splitlines()

    assert "account.limit  by relay  active -> rate_limited" in first
    assert "row=D16 answer=429" in first
    assert "account.linked  by ada" in last
    assert [event["kind"] for event in answer("history", "key", "--limit", "1")] == [
        "account.limit"
    ]


def test_clear_ends_the_limit_now(limited: Account) -> None:
    cleared = answer("clear", "key")

    assert (cleared["status"], cleared["limited_until"]) == ("active", None)


def test_a_credential_that_works_is_told_at_no_cost(key: Account, simulator: Simulator) -> None:
    told = answer("test", "key")

    assert (told["ok"], told["status"]) == (True, 200)
    assert len(simulator.requests()) == len(simulator.requests("/v1/models")) == 1
    event = Event.objects.get(kind="account.tested")
    assert (event.by, event.data["status"]) == ("command line", 200)


def test_a_refused_credential_is_told_and_its_account_stays_as_it_is(
    key: Account, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.script({"path": "/v1/models"}, status=401, body={"error": {"type": "x"}})

    out = io.StringIO()
    with pytest.raises(SystemExit):
        call_command("account", "test", "key", stdout=out)

    assert "The credential was refused (401)" in out.getvalue()
    assert Account.objects.get().status == "active"


def test_a_back_up_waits_until_it_is_enabled(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = simulator.api_key("old")
    monkeypatch.setattr("sys.stdin", io.StringIO(secret))

    added = answer("add", "--kind", "api_key", "--name", "old", "--restored")

    assert (added["status"], added["reason"]) == ("inactive", "restored")
    assert "its secret is checked first" in text("show", "old")
    assert answer("enable", "old")["status"] == "active"
