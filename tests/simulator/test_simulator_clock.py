"""What time alone changes, with a clock in the test's hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx2
import pytest

from simulator import grants, limits
from simulator.errors import ApiError, GrantError
from simulator.state import World
from tests.simulator.conftest import CHALLENGE, CLIENT_ID, REDIRECT, SCOPES, VERIFIER
from tests.support.simulator import Simulator

ADA = "ada@example.com"
MOMENT = datetime(2027, 3, 1, 9, tzinfo=UTC)
LOGIN = {
    "client_id": CLIENT_ID,
    "redirect_uri": REDIRECT,
    "state": "s",
    "scope": SCOPES,
    "code_challenge": CHALLENGE,
}


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(clock: Clock) -> World:
    return World(clock, people=1)


def fields(code: str) -> dict[str, str]:
    repeated = {name: LOGIN[name] for name in ("client_id", "redirect_uri", "state")}
    return {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": VERIFIER,
        **repeated,
    }


def test_a_code_lives_ten_minutes(world: World, clock: Clock) -> None:
    on_time = grants.approve(world, LOGIN, ADA)
    late = grants.approve(world, LOGIN, ADA)

    clock.now += 600
    assert grants.exchange(world, fields(on_time))["access_token"]

    clock.now += 1
    with pytest.raises(GrantError) as caught:
        grants.exchange(world, fields(late))
    assert caught.value.outcome == "code_expired"


def test_a_login_ends_thirty_days_after_it_began_whatever_was_refreshed(
    world: World, clock: Clock
) -> None:
    code = grants.approve(world, LOGIN, ADA)
    answer = grants.exchange(world, fields(code))

    clock.now += 29 * 86400
    answer = grants.refresh(world, _refreshing(answer["refresh_token"]))
    assert answer["refresh_token_expires_in"] == 86400

    clock.now += 86400
    with pytest.raises(GrantError, match="Refresh token expired"):
        grants.refresh(world, _refreshing(answer["refresh_token"]))


def test_a_spent_window_opens_at_its_reset(world: World, clock: Clock) -> None:
    ada = world.accounts[ADA]
    limits.set_windows(ada, {"5h": {"status": "rejected", "reset": clock.now + 90}}, clock.now)

    with pytest.raises(ApiError) as caught:
        limits.check(ada, "claude-x", clock.now + 0.5)
    assert caught.value.headers["retry-after"] == "90"

    limits.check(ada, "claude-x", clock.now + 90)


def _refreshing(token: str) -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": token, "client_id": CLIENT_ID}


def test_the_clock_of_a_running_one_stands_where_it_was_set(
    simulator: Simulator, client: httpx2.Client
) -> None:
    simulator.clock(MOMENT)
    token = simulator.setup_token(ADA)

    answer = client.get("/v1/models", headers=bearer(token))
    seen = simulator.requests()[-1]

    assert answer.headers["date"] == "Mon, 01 Mar 2027 09:00:00 GMT"
    assert seen["started_at"] == seen["ended_at"] == MOMENT.timestamp()
    assert simulator.accounts()[ADA]["valid_tokens"] == 1
    simulator.clock(MOMENT + timedelta(days=366))
    assert simulator.accounts()[ADA]["valid_tokens"] == 0


@pytest.mark.parametrize("release", [lambda s: s.clock(None), lambda s: s.reset()])
def test_a_released_clock_shows_the_real_time(
    simulator: Simulator, client: httpx2.Client, release: Callable[[Simulator], None]
) -> None:
    simulator.clock(MOMENT)
    release(simulator)

    date = parsedate_to_datetime(client.get("/v1/models").headers["date"])

    assert abs((datetime.now(UTC) - date).total_seconds()) < 10


@pytest.mark.parametrize("now", [-1, 1e12, True, "2027", [0]])
def test_a_clock_is_set_to_seconds_alone(client: httpx2.Client, now: object) -> None:
    answer = client.post("/_control/clock", json={"now": now})

    assert answer.status_code == 400
    assert "epoch seconds" in answer.json()["error"]


def bearer(token: str) -> dict[str, str]:
    return {
        "authorization": f"Bearer {token}",
        "anthropic-beta": "oauth-2025-04-20",
        "anthropic-version": "2023-06-01",
    }
