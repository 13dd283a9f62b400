"""Profile, usage and models."""

from __future__ import annotations

from collections.abc import Callable

import httpx2

from tests.simulator.wire import Api
from tests.support.simulator import Simulator

ADA = "ada@example.com"
BETA = {"anthropic-beta": "oauth-2025-04-20"}


def login(exchange: Callable[..., httpx2.Response]) -> dict[str, str]:
    return {"authorization": f"Bearer {exchange().json()['access_token']}"}


def test_the_profile_says_who_it_is(
    simulator: Simulator, client: httpx2.Client, exchange: Callable[..., httpx2.Response]
) -> None:
    simulator.person(ADA, organization_type="claude_enterprise", rate_limit_tier="tier_x")

    profile = client.get("/api/oauth/profile", headers=login(exchange)).json()

    assert profile["account"]["email"] == ADA
    assert profile["organization"]["organization_type"] == "claude_enterprise"
    assert profile["organization"]["rate_limit_tier"] == "tier_x"


def test_a_disabled_organisation_is_refused_everywhere(
    simulator: Simulator, client: httpx2.Client, exchange: Callable[..., httpx2.Response]
) -> None:
    headers = login(exchange) | BETA
    simulator.person(ADA, disabled=True)

    answers = [client.get(path, headers=headers) for path in ("/api/oauth/profile", "/v1/models")]

    assert [answer.status_code for answer in answers] == [400, 400]
    assert "organization has been disabled" in answers[0].text
    simulator.person(ADA, disabled=False, subscription_status="canceled")
    profile = client.get("/api/oauth/profile", headers=headers).json()
    assert profile["organization"]["subscription_status"] == "canceled"


def test_the_profile_of_a_setup_token_is_forbidden(api: Api) -> None:
    answer = api.client.get("/api/oauth/profile", headers=api.headers())

    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "permission_error"
    assert "user:profile" in answer.json()["error"]["message"]


def test_usage_counts_in_percent(
    simulator: Simulator, client: httpx2.Client, exchange: Callable[..., httpx2.Response]
) -> None:
    simulator.limit(ADA, {"5h": {"utilization": 0.37}, "7d_oi": {"status": "rejected"}})

    usage = client.get("/api/oauth/usage", headers=login(exchange) | BETA).json()

    assert usage["five_hour"]["utilization"] == 37.0
    assert usage["seven_day"]["utilization"] == 10.0
    scoped = [limit for limit in usage["limits"] if limit["kind"] == "weekly_scoped"]
    assert scoped[0]["percent"] == 100
    assert scoped[0]["scope"]["model"]["display_name"] == "Fable"


def test_usage_needs_the_oauth_beta(
    client: httpx2.Client, exchange: Callable[..., httpx2.Response]
) -> None:
    answer = client.get("/api/oauth/usage", headers=login(exchange))

    assert answer.status_code == 401


def test_models_are_listed_in_pages(api: Api) -> None:
    page = api.client.get("/v1/models?limit=2", headers=api.headers()).json()
    rest = api.client.get(f"/v1/models?after_id={page['last_id']}", headers=api.headers()).json()

    assert len(page["data"]) == 2
    assert page["has_more"] is True
    assert rest["has_more"] is False
    assert page["last_id"] not in [model["id"] for model in rest["data"]]


def test_one_model_can_be_shown_and_an_unknown_one_cannot(api: Api) -> None:
    known = api.client.get("/v1/models/claude-opus-5-5", headers=api.headers())
    unknown = api.client.get("/v1/models/claude-nope", headers=api.headers())

    assert known.json()["id"] == "claude-opus-5-5"
    assert unknown.status_code == 404
    assert unknown.json()["error"]["message"] == "model: claude-nope"
