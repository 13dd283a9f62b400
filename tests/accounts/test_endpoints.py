"""Compatible endpoints are added and changed, and a stored secret is never sent elsewhere."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts import adding, egress, endpoints, pool
from accounts.adding import AlreadyLinked
from accounts.endpoints import NO_SECRET, SecretNeeded, read_map, written_map
from accounts.errors import BadFields
from accounts.models import Account
from accounts.presets import ALL
from accounts.states import Auth, Status, Trigger
from events.models import Event

# Public by its number, so that nothing is looked up.
PUBLIC, OTHER = "https://1.1.1.1", "https://8.8.8.8/anthropic"
SECRET = "sk-compatible-1"

pytestmark = pytest.mark.django_db


@pytest.fixture
def endpoint() -> Account:
    return adding.add_compatible(
        "other", by="ada", base_url=PUBLIC, secret=SECRET, model_map={"claude-*": "glm"}
    )


def _stored(account: Account) -> str:
    return str(
        Account.objects.select_related("credential").get(pk=account.pk).credential.access_token
    )  # type: ignore[union-attr]


def _events(account: Account) -> list[Event]:
    return list(Event.objects.filter(kind="account.endpoint_changed", subject=account.subject))


def test_an_endpoint_becomes_a_member_that_knows_where_it_is() -> None:
    account = adding.add_compatible(
        "other",
        by="ada",
        base_url=" https://1.1.1.1/v1/messages/ ",
        auth="x-api-key",
        secret=f" {SECRET} ",
        forwards_betas=False,
        model_map={"claude-*": "small", "claude-opus-*": "big", "claude-opus-5": "one"},
        proxy="socks5h://ann:p%40ss@10.0.0.1:1080",
    )

    (member,) = pool.load().members
    assert member.endpoint is not None
    assert member.endpoint.base_url == PUBLIC
    assert member.endpoint.auth == "x-api-key"
    assert not member.endpoint.forwards_betas
    assert [ours for ours, _ in member.endpoint.model_map] == [
        "claude-opus-5",
        "claude-opus-*",
        "claude-*",
    ]
    assert member.secret == SECRET
    assert member.proxy == "socks5h://ann:p%40ss@10.0.0.1:1080"
    assert "p%40ss" not in repr(member)
    assert egress.shown(account) == "socks5h://10.0.0.1:1080"


def test_a_preset_fills_what_is_not_given_but_never_the_map(settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"allow_loopback_upstreams": True})

    account = adding.add_compatible("here", by="ada", preset="ollama")

    assert (account.base_url, account.auth) == ("http://localhost:11434", Auth.NONE)
    assert account.model_map == {}
    assert _stored(account) == NO_SECRET


def test_the_same_secret_at_two_endpoints_makes_two_accounts(endpoint: Account) -> None:
    adding.add_compatible("second", by="ada", base_url=OTHER, secret=SECRET)

    with pytest.raises(AlreadyLinked):
        adding.add_compatible("third", by="ada", base_url=PUBLIC, secret=SECRET)

    assert Account.objects.count() == 2


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"base_url": ""}, "base_url"),
        ({"base_url": "http://1.1.1.1"}, "base_url"),
        ({"base_url": "https://127.0.0.1"}, "base_url"),
        ({"base_url": "https://169.254.169.254"}, "base_url"),
        ({"auth": "basic"}, "auth"),
        ({"secret": ""}, "secret"),
        ({"secret": "two words"}, "secret"),
        ({"auth": "none"}, "secret"),
        ({"preset": "unknown"}, "preset"),
        ({"model_map": {"a b": "c"}}, "model_map"),
        ({"model_map": {"a": ""}}, "model_map"),
        ({"model_map": {"a": "b*"}}, "model_map"),
        ({"model_map": {"a*b*c*d*": "b"}}, "model_map"),
        ({"model_map": {str(n): "b" for n in range(101)}}, "model_map"),
        ({"proxy": "ftp://10.0.0.1:21"}, "proxy"),
        ({"proxy": "http://ann:hidden@127.0.0.1:3128"}, "proxy"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(given: dict[str, Any], field: str) -> None:
    fields = {"base_url": PUBLIC, "secret": SECRET} | given

    with pytest.raises(BadFields) as refused:
        adding.add_compatible("other", by="ada", **fields)

    assert list(refused.value.errors) == [field]
    assert "hidden" not in str(refused.value)
    assert not Account.objects.exists()


@pytest.mark.parametrize(
    "changes", [{"base_url": OTHER}, {"auth": "x-api-key"}, {"base_url": OTHER, "secret": ""}]
)
def test_moving_an_endpoint_needs_the_secret_again(
    endpoint: Account, changes: dict[str, Any]
) -> None:
    with pytest.raises(SecretNeeded):
        endpoints.change(endpoint, by="eve", **changes)

    endpoint.refresh_from_db()
    assert (endpoint.base_url, endpoint.auth) == (PUBLIC, "bearer")
    assert _events(endpoint) == []


def test_with_the_secret_an_endpoint_moves(endpoint: Account) -> None:
    changed = endpoints.change(endpoint, by="ada", base_url=OTHER, secret="sk-new")

    assert changed.base_url == OTHER
    assert _stored(endpoint) == "sk-new"
    (event,) = _events(endpoint)
    assert event.data["fields"] == ["base_url", "secret"]
    assert "sk-new" not in str(event.data)


def test_a_new_secret_brings_an_invalid_endpoint_back(endpoint: Account) -> None:
    assert endpoint.apply(Trigger.REJECT, by="relay", reason="auth_rejected")

    endpoints.change(endpoint, by="ada", secret="sk-new")

    endpoint.refresh_from_db()
    assert endpoint.status == Status.ACTIVE
    assert _stored(endpoint) == "sk-new"


def test_an_endpoint_without_authentication_forgets_its_secret(endpoint: Account) -> None:
    endpoints.change(endpoint, by="ada", auth="none")
    assert _stored(endpoint) == NO_SECRET

    endpoints.change(endpoint, by="ada", base_url=OTHER)
    with pytest.raises(SecretNeeded):
        endpoints.change(endpoint, by="ada", auth="bearer")


def test_map_and_proxy_change_without_the_secret(endpoint: Account) -> None:
    endpoints.change(
        endpoint, by="ada", model_map={"a": "b"}, forwards_betas=False, proxy="http://10.0.0.1:3128"
    )
    endpoints.change(endpoint, by="ada", proxy="http://10.0.0.1:3128")

    (member,) = pool.load().members
    assert member.endpoint is not None
    assert member.endpoint.model_map == (("a", "b"),)
    assert member.proxy == "http://10.0.0.1:3128"
    (event,) = _events(endpoint)
    assert event.data["fields"] == ["forwards_betas", "model_map", "proxy"]

    endpoints.change(endpoint, by="ada", proxy="")
    assert pool.load().members[0].proxy == ""


def test_none_leaves_an_endpoint_as_it_is_and_takes_its_proxy_away(endpoint: Account) -> None:
    egress.put(endpoint, "http://10.0.0.1:3128")

    endpoints.change(endpoint, by="ada", **dict.fromkeys(endpoints.FIELDS))

    (member,) = pool.load().members
    assert member.proxy == ""
    assert member.endpoint is not None
    assert member.endpoint.base_url == PUBLIC
    assert member.endpoint.model_map == (("claude-*", "glm"),)
    assert _stored(endpoint) == SECRET


def test_a_proxy_that_would_see_the_secret_in_the_clear_needs_it_again(settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"private_upstreams": ("10.0.0.0/8",)})
    account = adding.add_compatible("lan", by="ada", base_url="http://10.0.0.2", secret=SECRET)

    with pytest.raises(SecretNeeded):
        endpoints.change(account, by="eve", proxy="http://203.0.113.9:3128")

    endpoints.change(account, by="ada", proxy="http://203.0.113.9:3128", secret=SECRET)
    assert egress.shown(account) == "http://203.0.113.9:3128"


def test_two_accounts_cannot_come_to_be_the_same(endpoint: Account) -> None:
    second = adding.add_compatible("second", by="ada", base_url=OTHER, secret=SECRET)

    with pytest.raises(BadFields) as refused:
        endpoints.change(second, by="ada", base_url=PUBLIC, secret=SECRET)

    assert list(refused.value.errors) == ["secret"]
    assert _stored(second) == SECRET


def test_other_kinds_of_account_have_a_proxy_and_no_endpoint() -> None:
    account = adding.add_secret("api_key", "key", "sk-ant-api03-x", by="ada")

    endpoints.change(account, by="ada", proxy="socks5://10.0.0.1:1080")
    with pytest.raises(BadFields):
        endpoints.change(account, by="eve", base_url=OTHER, secret="x")

    assert pool.load().members[0].proxy == "socks5://10.0.0.1:1080"


def test_a_map_is_written_a_line_each() -> None:
    text = "claude-* = small\n\n claude-opus-*=big "

    assert read_map(text) == {"claude-*": "small", "claude-opus-*": "big"}
    assert written_map(read_map(text)) == "claude-opus-* = big\nclaude-* = small"
    for wrong in ("claude-opus", "a = b\na = c"):
        with pytest.raises(ValueError, match="“"):
            read_map(wrong)


def test_every_preset_can_be_added_once_loopback_is_allowed(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"allow_loopback_upstreams": True})
    where = {"localhost": "127.0.0.1"}
    monkeypatch.setattr(
        "socket.getaddrinfo",
        lambda host, port, **_: [(2, 1, 6, "", (where.get(host, "1.1.1.1"), port))],
    )

    for preset in ALL:
        columns = endpoints.described(
            preset.base_url, preset.auth, model_map=dict(preset.model_map)
        )
        assert columns["base_url"] == preset.base_url


def _added(monkeypatch: pytest.MonkeyPatch, stdin: str, *words: str) -> Account:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    call_command("account", "add", "--kind", "compatible", "--json", *words, stdout=out)
    assert SECRET not in out.getvalue()
    return Account.objects.get(pk=json.loads(out.getvalue())["id"])


def test_the_command_line_takes_secrets_from_standard_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("--name", "x", "--preset", "deepseek", "--base-url", PUBLIC, "--no-betas")
    maps = ("--map", "claude-* = small", "--map", "claude-opus-*=big", "--proxy-stdin")

    account = _added(monkeypatch, f"http://ann:pw@10.0.0.1:3128\n{SECRET}\n", *words, *maps)

    assert (account.preset, account.base_url, account.auth) == ("deepseek", PUBLIC, "x-api-key")
    assert account.model_map == {"claude-*": "small", "claude-opus-*": "big"}
    assert egress.of(account) == "http://ann:pw@10.0.0.1:3128"
    assert _stored(account) == SECRET


def test_the_command_line_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="PRIVATE_UPSTREAMS"):
        _added(monkeypatch, SECRET, "--name", "x", "--base-url", "https://10.0.0.1")
    with pytest.raises(CommandError, match="is not like"):
        _added(monkeypatch, SECRET, "--name", "x", "--base-url", PUBLIC, "--map", "a")
