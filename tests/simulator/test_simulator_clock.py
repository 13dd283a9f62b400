"""What time alone changes, with a clock in the test's hand."""

from __future__ import annotations

import pytest

from simulator import grants, limits
from simulator.errors import ApiError, GrantError
from simulator.state import World
from tests.simulator.conftest import CHALLENGE, CLIENT_ID, REDIRECT, SCOPES, VERIFIER

ADA = "ada@example.com"
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
