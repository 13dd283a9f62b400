"""A compatible endpoint is added on a page that suggests and never repeats a secret."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts import egress
from accounts.models import Account

PAGE = "/accounts/add/"
pytestmark = pytest.mark.django_db


def _fields(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "compatible",
        "preset": "deepseek",
        "name": "deep",
        "base_url": "https://1.1.1.1/anthropic",
        "auth": "x-api-key",
        "secret": "sk-hush",
        "model_map": "claude-* = deepseek-flash",
        "proxy": "http://ann:hush@10.0.0.1:3128",
    } | changes


def test_a_preset_fills_the_form_in_by_its_address(admin_client: Client) -> None:
    text = admin_client.get(f"{PAGE}?kind=compatible&preset=deepseek").content.decode()

    assert 'value="https://api.deepseek.com/anthropic"' in text
    assert '<option value="x-api-key" selected>' in text
    assert "claude-opus-* = deepseek-v4-pro\nclaude-* = deepseek-flash" in text
    assert "checked" not in text


@pytest.mark.parametrize("preset", ["", "nobody", "<script>"])
def test_without_a_preset_the_form_is_empty(admin_client: Client, preset: str) -> None:
    answer = admin_client.get(PAGE, {"kind": "compatible", "preset": preset})

    assert answer.status_code == 200
    assert "<script>" not in answer.content.decode().replace("<script src", "")
    assert "Base URL" in answer.content.decode()


def test_an_endpoint_is_added_as_the_form_says(admin_client: Client) -> None:
    answer = admin_client.post(PAGE, _fields())

    assert answer.status_code == 302
    account = Account.objects.get()
    assert (account.kind, account.name, account.preset) == ("compatible", "deep", "deepseek")
    assert (account.base_url, account.auth) == ("https://1.1.1.1/anthropic", "x-api-key")
    assert account.model_map == {"claude-*": "deepseek-flash"}
    assert not account.forwards_betas
    assert egress.shown(account) == "http://10.0.0.1:3128"
    shown = admin_client.get("/accounts/").content.decode()
    assert "Compatible endpoint" in shown
    # Of a plan's windows nothing is known there.
    assert "5 hours" not in shown
    assert "hush" not in shown


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"base_url": "https://10.0.0.1"}, "PRIVATE_UPSTREAMS"),
        ({"base_url": "ftp://1.1.1.1"}, "https://"),
        ({"model_map": "no equals"}, "is not like"),
        ({"model_map": "a = b*"}, "stars at most"),
        ({"secret": ""}, "There is no secret."),
        ({"proxy": "http://ann:hush@10.0.0.1"}, "must name the port"),
        ({"name": ""}, "required"),
    ],
)
def test_what_is_wrong_is_said_and_no_secret_repeated(
    admin_client: Client, wrong: dict[str, str], said: str
) -> None:
    answer = admin_client.post(PAGE, _fields(**wrong))

    assert answer.status_code == 200
    text = answer.content.decode()
    assert said in text
    assert "hush@" not in text
    assert "sk-hush" not in text
    assert not Account.objects.exists()


def test_a_key_may_have_a_proxy_from_the_first(admin_client: Client) -> None:
    fields = {"kind": "api_key", "name": "key", "secret": "sk-ant-api03-x"}

    refused = admin_client.post(PAGE, fields | {"proxy": "nonsense"})
    assert "A proxy’s address" in refused.content.decode().replace("&#x27;", "’")
    admin_client.post(PAGE, fields | {"proxy": "socks5://10.0.0.1:1080"})

    assert egress.shown(Account.objects.get()) == "socks5://10.0.0.1:1080"
