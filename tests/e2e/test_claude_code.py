"""The real Claude Code works through the relay as it does with the API itself."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.conftest import EMAILS, Claude

pytestmark = pytest.mark.e2e

Make = Callable[[], Claude]


def _messages(claude: Claude) -> list[dict[str, Any]]:
    return claude.product.simulator.requests(path="/v1/messages")


def test_it_gets_a_reply(claude: Make) -> None:
    one = claude()

    said = one.ask("reply: the relay works")

    assert (said.result, said.is_error, said.exit_code) == ("the relay works", False, 0)


def test_it_runs_a_tool_and_reports_its_output(claude: Make) -> None:
    one = claude()

    said = one.ask("bash: echo carousel-$((40 + 2))", "--allowedTools", "Bash")

    assert "carousel-42" in said.result
    assert not said.is_error
    assert len(_messages(one)) == 2
    assert len({request["account"] for request in _messages(one)}) == 1


def test_the_key_stays_with_the_relay_and_every_body_arrives_as_it_was_sent(claude: Make) -> None:
    one = claude()

    one.ask("bash: echo one", "--allowedTools", "Bash")
    one.ask("reply: two")

    sent = Counter(hashlib.sha256(body).hexdigest() for body in one.tap.bodies() if body)
    arrived = Counter(request["body_sha256"] for request in _messages(one))
    assert sent == arrived
    assert sum(arrived.values()) == 3
    assert one.product.simulator.seen(one.key) == 0
    assert all(request["violations"] == [] for request in _messages(one))


def test_a_conversation_survives_an_account_that_becomes_rate_limited(claude: Make) -> None:
    one = claude()
    first = one.ask("reply: before")
    served = _messages(one)[-1]["account"]
    reset = int(time.time()) + 25
    window = {"5h": {"status": "rejected", "utilization": 1.0, "reset": reset}}
    one.product.simulator.limit(served, window)

    second = one.ask("reply: after", "--resume", first.session)
    limited = one.product.account(served.partition("@")[0])
    # The tests that follow need all three accounts; a limit ends by its own time alone.
    time.sleep(max(0.0, reset + 1 - time.time()))

    assert (first.result, second.result) == ("before", "after")
    assert limited["status"] == "rate_limited"
    assert _messages(one)[-1]["account"] != served


def test_a_conversation_survives_a_token_that_expires(claude: Make) -> None:
    one = claude()
    first = one.ask("reply: before")
    served = _messages(one)[-1]["account"]
    one.product.simulator.expire_access(served)

    second = one.ask("reply: after", "--resume", first.session)

    assert (first.result, second.result) == ("before", "after")
    assert _messages(one)[-1]["account"] == served
    statuses = [request["status"] for request in _messages(one)]
    assert statuses.count(401) == 1


def test_six_sessions_over_three_accounts_land_two_on_each(claude: Make) -> None:
    for _ in range(6):
        assert claude().ask("reply: hello").result == "hello"

    requests = _messages(claude())
    sessions = {
        dict(request["headers"])["x-claude-code-session-id"]: request["account"]
        for request in requests
    }
    assert Counter(sessions.values()) == dict.fromkeys(EMAILS, 2), [
        (request["account"], request["status"]) for request in requests
    ]


def test_a_wrong_key_ends_at_once(claude: Make) -> None:
    one = claude()
    one.key = "rk_wrong"

    started = time.monotonic()
    said = one.ask("reply: never")

    assert said.is_error
    assert time.monotonic() - started < 20
    assert _messages(one) == []
    assert len([body for body in one.tap.bodies() if body]) == 1


def test_a_cut_stream_is_tried_again_by_claude_code_itself(claude: Make) -> None:
    one = claude()
    one.product.simulator.script({"path": "/v1/messages"}, cut_after=900)

    said = one.ask("reply: whole")

    assert said.result == "whole"
    assert len(_messages(one)) == 2


def test_a_session_that_is_revoked_ends_with_the_relays_words(claude: Make) -> None:
    one = claude()
    one.product.simulator.script({"path": "/v1/messages"}, events=600, pace=0.1)
    with ThreadPoolExecutor() as running:
        saying = running.submit(one.ask, "reply: never whole")
        session = _living_session(one)
        revoked_at = time.monotonic()

        one.product.manage("session", "revoke", session)
        said = saying.result()

    assert time.monotonic() - revoked_at < 15
    assert said.is_error
    assert "ended by the operator of this relay" in said.result
    assert [request["ended"] for request in _messages(one)] == ["client_gone"]


@pytest.mark.parametrize(
    ("term", "words"),
    [
        ("--usd-per-day", "may spend nothing: 0.00 USD a day"),
        ("--requests-per-minute", "1 request a minute"),
    ],
)
def test_a_limit_of_its_key_is_shown_and_ends_the_run(claude: Make, term: str, words: str) -> None:
    one = claude()
    one.ask("reply: warm")
    value = "0" if term == "--usd-per-day" else "1"
    one.product.manage("key", "update", one.key_name, term, value)
    one.ask("reply: the first of this minute")
    before = len(one.tap.bodies())

    started = time.monotonic()
    said = one.ask("reply: never")

    assert said.is_error
    assert words in said.result
    assert time.monotonic() - started < 20
    assert len(one.tap.bodies()) == before + 1


def _living_session(one: Claude, within: float = 20.0) -> str:
    """Return the id of the session that streams now, once it is told of."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        rows = [
            row for row in one.product.manage("session", "list") if row["key_name"] == one.key_name
        ]
        if rows and rows[0]["in_flight"]:
            return str(rows[0]["id"])
        time.sleep(0.3)
    raise AssertionError("no session was told of")
