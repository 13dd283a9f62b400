"""The token endpoint: strict exchange, single-use refresh tokens, a ledger of all calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.support.simulator import Simulator

Exchange = Callable[..., httpx2.Response]
Refresh = Callable[..., httpx2.Response]
ADA = "ada@example.com"


def outcomes(simulator: Simulator) -> list[str]:
    return [call["outcome"] for call in simulator.token_ledger()["calls"]]


def test_a_code_becomes_a_pair_of_tokens(simulator: Simulator, exchange: Exchange) -> None:
    answer = exchange().json()

    ada = simulator.accounts()[ADA]
    assert answer["token_type"] == "Bearer"
    assert answer["access_token"].startswith("sk-ant-oat01-")
    assert answer["refresh_token"].startswith("sk-ant-ort01-")
    assert answer["expires_in"] == 28800
    assert answer["refresh_token_expires_in"] == pytest.approx(30 * 86400, abs=2)
    assert answer["scope"] == "user:inference user:profile user:sessions:claude_code"
    assert answer["account"] == {"uuid": ada["account_uuid"], "email_address": ADA}
    assert answer["organization"]["uuid"] == ada["organization_uuid"]
    assert simulator.token_ledger()["exchanges"] == 1


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"code_verifier": "w" * 43}, "bad_pkce"),
        ({"redirect_uri": "http://localhost:1/callback"}, "bad_redirect_uri"),
        ({"state": "other"}, "bad_state"),
        ({"client_id": "other"}, "bad_client_id"),
        ({"code": "other"}, "unknown_code"),
    ],
)
def test_an_exchange_that_does_not_repeat_the_login_is_an_invalid_grant(
    simulator: Simulator, exchange: Exchange, changes: dict[str, str], outcome: str
) -> None:
    answer = exchange(**changes)

    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_grant"
    assert outcomes(simulator) == [outcome]


def test_a_code_works_once(
    simulator: Simulator, exchange: Exchange, authorize_url: Callable[..., str]
) -> None:
    code = simulator.authorize(authorize_url(), ADA).partition("#")[0]
    exchange(code=code)

    again = exchange(code=code)

    assert again.json()["error"] == "invalid_grant"
    assert outcomes(simulator) == ["ok", "code_used"]


@pytest.mark.parametrize("extra", [{"expires_in": 31536000}, {"scope": "x"}, {"code": 7}])
def test_an_unexpected_field_is_an_invalid_format(
    exchange: Exchange, extra: dict[str, Any]
) -> None:
    answer = exchange(**extra)

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "Invalid request format"
    assert answer.json()["request_id"] == answer.headers["request-id"]


def test_a_form_encoded_refresh_is_an_invalid_format(
    client: httpx2.Client, exchange: Exchange
) -> None:
    token = exchange().json()["refresh_token"]
    fields = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "c"}

    answer = client.post("/v1/oauth/token", data=fields)

    assert answer.status_code == 400


def test_a_refresh_rotates_and_the_old_access_token_lives_on(
    client: httpx2.Client, exchange: Exchange, refresh: Refresh
) -> None:
    first = exchange().json()

    second = refresh(first["refresh_token"]).json()

    assert second["refresh_token"] != first["refresh_token"]
    for pair in (first, second):
        headers = {"authorization": f"Bearer {pair['access_token']}"}
        assert client.get("/api/oauth/profile", headers=headers).status_code == 200


def test_a_second_use_of_a_refresh_token_revokes_the_whole_grant(
    simulator: Simulator, client: httpx2.Client, exchange: Exchange, refresh: Refresh
) -> None:
    first = exchange().json()
    second = refresh(first["refresh_token"]).json()

    reused = refresh(first["refresh_token"])

    assert reused.json() == {
        "error": "invalid_grant",
        "error_description": "Refresh token not found or invalid",
    }
    headers = {"authorization": f"Bearer {second['access_token']}"}
    assert client.get("/api/oauth/profile", headers=headers).status_code == 401
    assert refresh(second["refresh_token"]).status_code == 400
    assert outcomes(simulator) == ["ok", "ok", "reused", "revoked"]
    assert simulator.accounts()[ADA]["grants"][0]["revoked"] is True
    assert simulator.accounts()[ADA]["valid_tokens"] == 0


def test_a_scope_that_was_not_granted_cannot_be_refreshed(
    exchange: Exchange, refresh: Refresh
) -> None:
    answer = refresh(exchange().json()["refresh_token"], scope="user:inference user:voice")

    assert answer.json()["error"] == "invalid_scope"


@pytest.mark.parametrize("agent", ["", "Python-urllib/3.11"])
def test_a_client_without_a_name_is_refused_by_the_edge(client: httpx2.Client, agent: str) -> None:
    answer = client.post("/v1/oauth/token", json={}, headers={"user-agent": agent})

    assert answer.status_code == 403
    assert answer.headers["content-type"].startswith("text/html")


def test_a_login_that_reached_its_end_cannot_be_refreshed(
    simulator: Simulator, client: httpx2.Client, exchange: Exchange, refresh: Refresh
) -> None:
    pair = exchange().json()
    simulator.expire_grant(ADA)

    answer = refresh(pair["refresh_token"])

    assert answer.json()["error_description"] == "Refresh token expired"
    headers = {"authorization": f"Bearer {pair['access_token']}"}
    assert client.get("/api/oauth/profile", headers=headers).status_code == 200


def test_a_lost_answer_leaves_the_rotation_done(
    simulator: Simulator, exchange: Exchange, refresh: Refresh
) -> None:
    token = exchange().json()["refresh_token"]
    simulator.script({"path": "/v1/oauth/token"}, process=True, reset=True)

    with pytest.raises(httpx2.TransportError):
        refresh(token)

    assert outcomes(simulator) == ["ok", "ok"]
    assert refresh(token).status_code == 400
    assert outcomes(simulator)[-1] == "reused"


def test_a_scripted_refusal_rotates_nothing(
    simulator: Simulator, exchange: Exchange, refresh: Refresh
) -> None:
    token = exchange().json()["refresh_token"]
    simulator.script({"path": "/v1/oauth/token", "account": ADA}, status=429)

    refused = refresh(token)

    assert refused.status_code == 429
    assert refresh(token).status_code == 200
    assert outcomes(simulator) == ["ok", "scripted", "ok"]
    assert simulator.token_ledger()["refreshes"] == 2


def test_the_answer_can_be_bent(simulator: Simulator, exchange: Exchange, refresh: Refresh) -> None:
    token = exchange().json()["refresh_token"]
    simulator.script({}, omit_refresh_token=True, expires_in="soon", omit=["account"])

    answer = refresh(token).json()

    assert answer["expires_in"] == "soon"
    assert not {"refresh_token", "account"} & set(answer)


def test_the_life_of_access_tokens_can_be_set(simulator: Simulator, exchange: Exchange) -> None:
    simulator.access_ttl(ADA, 60)

    assert exchange().json()["expires_in"] == 60


def test_an_inference_only_login_is_a_setup_token(
    simulator: Simulator, exchange: Exchange, authorize_url: Callable[..., str]
) -> None:
    code = simulator.authorize(authorize_url(scope="user:inference"), ADA).partition("#")[0]

    answer = exchange(code=code).json()

    assert answer["expires_in"] == 31536000
    assert "refresh_token" not in answer
