"""What an upstream's answer does to the request, and to the account that gave it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Account
from events.models import Event
from relay import verdicts
from relay.bench import bench
from tests.relay.conftest import Relay


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows wait a little before they try again; tests do not."""
    rows = tuple(
        verdicts.Row(**{f: getattr(row, f) for f in row.__dataclass_fields__} | {"wait": (0, 0)})
        for row in verdicts.ROWS
    )
    monkeypatch.setattr(verdicts, "ROWS", rows)


def _error(type_: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_1"}


async def _bind(relay: Relay, *names: str) -> None:
    """Link accounts, and let the session "s" belong to the first."""
    await relay.link(*names)
    assert (await relay.ask(session="s")).status_code == 200
    relay.simulator.clear_requests()


async def test_a_spent_window_moves_on_and_benches_the_account_until_its_own_reset(
    relay: Relay,
) -> None:
    await _bind(relay, "ada", "grace")
    reset = int(time.time()) + 3600
    windows = {
        "5h": {"status": "rejected", "utilization": 1.0, "reset": reset},
        "7d": {"status": "allowed", "utilization": 0.3, "reset": reset + 90_000},
    }
    relay.simulator.limit("ada@example.com", windows)

    answers = [await relay.ask(session="s") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert relay.served() == ["ada", "grace", "grace", "grace"]
    ada = await relay.account("ada")
    assert ada.status == "rate_limited"
    assert ada.reason == "limit_reached (5h)"
    assert abs(ada.limited_until.timestamp() - reset) <= 1
    event = await Event.objects.filter(kind="account.limit").alast()
    assert event is not None
    assert event.data["row"] == "D16"


async def test_every_spent_account_is_passed_over_once(relay: Relay) -> None:
    await relay.link("ada", "grace", "linus", "joan")
    for name in ("ada", "grace", "linus"):
        window = {"7d": {"status": "rejected", "utilization": 1.0, "reset": time.time() + 900}}
        relay.simulator.limit(f"{name}@example.com", window)

    answer = await relay.ask(session="s")

    assert answer.status_code == 200
    assert sorted(relay.served()) == ["ada", "grace", "joan", "linus"]


async def test_a_spent_model_window_benches_that_family_only(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    window = {"7d_opus": {"status": "rejected", "utilization": 1.0, "reset": time.time() + 900}}
    relay.simulator.limit("ada@example.com", window)

    opus = [await relay.ask(session="s", model="claude-opus-5-5") for _ in range(2)]
    haiku = [await relay.ask(session=f"h{i}", model="claude-haiku-5-5") for i in range(4)]

    assert {answer.status_code for answer in opus + haiku} == {200}
    assert relay.served()[:3] == ["ada", "grace", "grace"]
    assert "ada" in relay.served()[3:]
    assert (await relay.account("ada")).status == "active"


async def test_retry_after_without_windows_cools_the_account_for_just_that(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    ada = {"account": "ada@example.com"}
    relay.simulator.script(ada, status=429, headers={"retry-after": "30"})

    answer = await relay.ask(session="s")

    assert answer.status_code == 200
    assert relay.served() == ["ada", "grace"]
    account = await relay.account("ada")
    assert account.status == "active"
    assert 25 < (account.cooldown_until - timezone.now()).total_seconds() <= 30


async def test_a_bare_429_is_tried_again_there_and_then_elsewhere(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    relay.simulator.script({"account": "ada@example.com"}, times=None, status=429)

    answer = await relay.ask(session="s")

    assert answer.status_code == 200
    assert relay.served() == ["ada", "ada", "grace"]
    account = await relay.account("ada")
    assert (account.status, account.cooldown_until) == ("active", None)
    assert bench.is_penalised(account.pk, timezone.now())


async def test_a_429_about_a_feature_never_benches_anybody(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    body = _error("rate_limit_error", "Extra usage is required for long context requests.")
    relay.simulator.script(times=None, status=429, headers={"retry-after": "100"}, body=body)

    answer = await relay.ask(session="s")

    assert answer.status_code == 429
    assert answer.json() == body
    assert relay.served() == ["ada", "grace"]
    assert {a.status for a in [await relay.account(n) for n in ("ada", "grace")]} == {"active"}


async def test_a_401_is_healed_by_one_refresh(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    relay.simulator.expire_access("ada@example.com")

    answer = await relay.ask(session="s")

    assert answer.status_code == 200
    assert relay.served() == ["ada", "ada"]
    assert relay.simulator.token_ledger()["refreshes"] == 1
    assert (await relay.account("ada")).status == "active"


async def test_a_second_401_with_a_new_token_makes_the_account_invalid(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    body = _error("authentication_error", "Invalid bearer token")
    match = {"account": "ada@example.com", "path": "/v1/messages"}
    relay.simulator.script(match, times=None, status=401, body=body)

    answer = await relay.ask(session="s")

    assert answer.status_code == 200
    assert relay.served() == ["ada", "ada", "grace"]
    ada = await relay.account("ada")
    assert (ada.status, ada.reason) == ("invalid", "auth_rejected")


async def test_a_revoked_token_counts_as_a_401(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    text = "OAuth token has been revoked. Please obtain a new token."
    match = {"account": "ada@example.com", "path": "/v1/messages"}
    relay.simulator.script(match, status=403, body=_error("permission_error", text))

    answer = await relay.ask(session="s")

    assert answer.status_code == 200
    assert relay.served() == ["ada", "ada"]


async def test_an_upstream_401_never_reaches_the_client(relay: Relay) -> None:
    await _bind(relay, "ada")
    relay.simulator.revoke_grant("ada@example.com")

    answer = await relay.ask(session="s")

    assert answer.status_code == 503
    assert answer.headers["x-relay-error"] == "pool_unavailable"
    ada = await relay.account("ada")
    assert (ada.status, ada.reason) == ("invalid", "refresh_rejected")


async def test_an_api_key_that_is_refused_twice_is_invalid(relay: Relay) -> None:
    await relay.add_api_key("console")
    body = _error("authentication_error", "invalid x-api-key")
    relay.simulator.script({"path": "/v1/messages"}, times=2, status=401, body=body)

    answer = await relay.ask(session="s")

    assert answer.status_code == 503
    account = await relay.account("console")
    assert (account.status, account.reason) == ("invalid", "auth_rejected")


async def test_a_disabled_organisation_is_invalid_and_the_next_account_serves(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    body = _error("invalid_request_error", "This organization has been disabled.")
    relay.simulator.script({"account": "ada@example.com"}, status=400, body=body)

    answer = await relay.ask(session="s")

    assert answer.status_code == 200
    ada = await relay.account("ada")
    assert (ada.status, ada.reason) == ("invalid", "provider_disabled")


async def test_spent_credit_benches_for_an_hour(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    text = "Your credit balance is too low to access the Anthropic API."
    script = {"account": "ada@example.com"}
    relay.simulator.script(script, status=400, body=_error("invalid_request_error", text))

    answer = await relay.ask(session="s")

    assert answer.status_code == 200
    ada = await relay.account("ada")
    assert (ada.status, ada.reason) == ("rate_limited", "billing")
    assert 3500 < (ada.limited_until - timezone.now()).total_seconds() <= 3600


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_the_clients_own_mistake_goes_back_word_for_word(relay: Relay, status: int) -> None:
    await _bind(relay, "ada", "grace")
    text = (
        '{ "type":"error",\n "error": {"type":"invalid_request_error","message":"prompt \u00e9"} }'
    )
    relay.simulator.script(status=status, text=text, headers={"content-type": "application/json"})

    answer = await relay.ask(session="s")

    assert answer.status_code == status
    assert answer.content == text.encode()
    assert relay.served() == ["ada"]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_server_error_is_tried_once_elsewhere(relay: Relay, status: int) -> None:
    await _bind(relay, "ada", "grace")
    relay.simulator.script({"account": "ada@example.com"}, status=status)

    answer = await relay.ask(session="s")

    assert answer.status_code == 200
    assert relay.served() == ["ada", "grace"]
    assert (await relay.account("ada")).status == "active"


async def test_a_server_error_everywhere_is_passed_on_after_two_accounts(relay: Relay) -> None:
    await _bind(relay, "ada", "grace", "linus")
    body = _error("api_error", "Internal server error")
    relay.simulator.script(times=None, status=500, body=body)

    answer = await relay.ask(session="s")

    assert (answer.status_code, answer.json()) == (500, body)
    assert len(relay.served()) == 2


async def test_an_overload_is_tried_once_more_on_the_same_account_only(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    relay.simulator.script(times=None, status=529)

    answer = await relay.ask(session="s")

    assert answer.status_code == 529
    assert relay.served() == ["ada", "ada"]


async def test_an_error_as_the_first_event_fails_over(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    error = {"type": "api_error", "message": "Internal server error"}
    relay.simulator.script({"account": "ada@example.com"}, error_event=error, after_events=0)

    answer = await relay.ask(session="s", stream=True)

    assert answer.status_code == 200
    assert "message_stop" in answer.text
    assert "event: error" not in answer.text
    assert relay.served() == ["ada", "grace"]


async def test_an_overload_as_the_first_event_ends_as_a_plain_529(relay: Relay) -> None:
    await _bind(relay, "ada")
    error = {"type": "overloaded_error", "message": "Overloaded"}
    relay.simulator.script(times=None, error_event=error, after_events=0)

    answer = await relay.ask(session="s", stream=True)

    assert answer.status_code == 529
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"] == error


@pytest.mark.parametrize("reset", [True, "fin"])
async def test_a_connection_lost_before_the_answer_is_tried_once_elsewhere(
    relay: Relay, reset: object
) -> None:
    await relay.link("ada", "grace")
    relay.simulator.script(reset=reset)

    answer = await relay.ask(session="s")

    assert answer.status_code == 200
    assert sorted(relay.served()) == ["ada", "grace"]


async def test_a_stale_connection_is_tried_again_at_once_on_a_new_one(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    relay.simulator.script({"account": "ada@example.com"}, reset="fin")

    answer = await relay.ask(session="s")

    assert answer.status_code == 200
    assert relay.served() == ["ada", "ada"]


async def test_an_upstream_that_cannot_be_reached_is_a_502(relay: Relay, settings: Any) -> None:
    await relay.link("ada", "grace")
    unused = {"upstream_base_url": "http://127.0.0.1:9"}
    settings.CONFIG = settings.CONFIG.model_copy(update=unused)

    answer = await relay.ask()

    assert answer.status_code == 502
    assert answer.headers["x-relay-error"] == "upstream_connect"


@pytest.mark.parametrize("stream", [True, False])
async def test_d06_d27_an_upstream_that_does_not_answer_in_time_is_a_504(
    relay: Relay, settings: Any, stream: bool
) -> None:
    await _bind(relay, "ada", "grace")
    settings.CONFIG = settings.CONFIG.model_copy(update={"relay_timeout": 0.3})
    relay.simulator.script(times=None, delay=5)

    answer = await relay.ask(session="s", stream=stream)

    assert answer.status_code == 504
    assert answer.headers["x-relay-error"] == "upstream_timeout"
    assert relay.served() == ["ada"]


async def test_a_redirect_is_never_followed(relay: Relay) -> None:
    await _bind(relay, "ada")
    headers = {"location": f"{relay.simulator.url}/v1/models"}
    relay.simulator.script(status=307, headers=headers)

    answer = await relay.ask(session="s")

    assert answer.status_code == 502
    assert len(relay.simulator.requests()) == 1


async def test_a_refusal_of_the_edge_does_not_blame_the_account(relay: Relay) -> None:
    await _bind(relay, "ada", "grace")
    relay.simulator.script(
        times=None, status=403, text="<html>no</html>", headers={"content-type": "text/html"}
    )

    answer = await relay.ask(session="s")

    assert answer.status_code == 503
    assert answer.headers["x-relay-error"] == "upstream_blocked"
    assert relay.served() == ["ada"]
    assert (await relay.account("ada")).status == "active"


async def test_a_client_that_is_not_claude_code_goes_to_an_account_that_may_serve_it(
    relay: Relay,
) -> None:
    await relay.link("ada")
    await relay.add_api_key("console")
    other = {"user-agent": "Anthropic/Python 2.10.0"}

    preferred = [await relay.ask(session=f"p{i}", headers=other) for i in range(3)]

    assert {answer.status_code for answer in preferred} == {200}
    assert relay.served() == ["console"] * 3


async def test_a_subscription_that_refuses_another_client_hands_over_to_an_api_key(
    relay: Relay,
) -> None:
    await relay.link("ada", "grace")
    body = _error(
        "invalid_request_error",
        "This credential is only authorized for use with Claude Code and cannot be used for other "
        "API requests.",
    )
    relay.simulator.script({"path": "/v1/messages"}, times=None, status=400, body=body)
    other = {"user-agent": "Anthropic/Python 2.10.0"}

    nobody = await relay.ask(session="a", headers=other)

    assert (nobody.status_code, nobody.json()) == (400, body)
    assert len(relay.served()) == 1


async def test_d03_a_token_about_to_expire_is_renewed_before_the_request(relay: Relay) -> None:
    relay.simulator.person("ada@example.com")
    relay.simulator.access_ttl("ada@example.com", 61)
    await relay.link("ada")
    await Account.objects.aupdate(last_used_at=None)
    from accounts.models import Credential

    await Credential.objects.aupdate(expires_at=timezone.now())

    answer = await relay.ask()

    assert answer.status_code == 200
    assert relay.served() == ["ada"]
    assert relay.simulator.token_ledger()["refreshes"] == 1
