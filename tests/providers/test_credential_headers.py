"""How each kind of account puts its credential into a request."""

from __future__ import annotations

import pytest

from providers.anthropic.headers import OAUTH_BETA
from providers.registry import PROVIDERS

CLIENT = [("accept", "*/*"), ("anthropic-version", "2023-06-01")]


@pytest.mark.parametrize("kind", ["oauth", "setup_token"])
def test_a_login_is_a_bearer_token_with_its_beta(kind: str) -> None:
    assert PROVIDERS[kind].authenticate(CLIENT, "sk-x") == [
        *CLIENT,
        ("anthropic-beta", OAUTH_BETA),
        ("authorization", "Bearer sk-x"),
    ]


def test_an_api_key_changes_nothing_else() -> None:
    sent = [*CLIENT, ("anthropic-beta", "a")]

    assert PROVIDERS["api_key"].authenticate(sent, "sk-x") == [*sent, ("x-api-key", "sk-x")]


@pytest.mark.parametrize(
    ("sent", "merged"),
    [
        (["a,b"], [f"a,b,{OAUTH_BETA}"]),
        (["a", "b,b"], ["a", f"b,b,{OAUTH_BETA}"]),
        ([f"a, {OAUTH_BETA} ,b"], [f"a, {OAUTH_BETA} ,b"]),
        ([OAUTH_BETA, "a"], [OAUTH_BETA, "a"]),
        ([""], [OAUTH_BETA]),
        ([" "], [OAUTH_BETA]),
        ([f"{OAUTH_BETA}-other"], [f"{OAUTH_BETA}-other,{OAUTH_BETA}"]),
    ],
)
def test_the_clients_betas_stay_as_they_were_sent(sent: list[str], merged: list[str]) -> None:
    headers = [("anthropic-beta", value) for value in sent]

    authenticated = PROVIDERS["oauth"].authenticate(headers, "t")

    assert [value for name, value in authenticated if name == "anthropic-beta"] == merged
    assert headers == [("anthropic-beta", value) for value in sent]


def test_only_api_keys_serve_any_client_and_only_logins_renew() -> None:
    assert {kind for kind, p in PROVIDERS.items() if p.serves_any_client} == {"api_key"}
    assert {kind for kind, p in PROVIDERS.items() if p.can_refresh} == {"oauth"}
    assert all(kind == provider.kind for kind, provider in PROVIDERS.items())
