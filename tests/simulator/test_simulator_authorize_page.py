"""The authorize page: what it checks, what it shows, where it sends people."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

import httpx2
import pytest


def submit(client: httpx2.Client, page: str, email: str) -> httpx2.Response:
    """Press the button of that person on the page."""
    form = next(part for part in page.split("<form")[1:] if f"Authorize as {email}" in part)
    pairs = re.findall(r'name="([^"]*)" value="([^"]*)"', form)
    return client.post("/oauth/authorize", data={k: unescape(v) for k, v in pairs})


def test_it_lists_the_people_and_shows_the_code_after_approval(
    client: httpx2.Client, authorize_url: Callable[..., str]
) -> None:
    page = client.get(authorize_url(state='a"b&c'))
    shown = submit(client, page.text, "grace@example.com")

    assert page.status_code == 200
    assert page.text.count("Authorize as") == 3
    found = re.search(r'<code id="code">(.*?)</code>', shown.text)
    assert found is not None
    assert unescape(found[1]).partition("#")[2] == 'a"b&c'


def test_a_loopback_callback_gets_code_and_state_by_redirect(
    client: httpx2.Client, authorize_url: Callable[..., str]
) -> None:
    page = client.get(authorize_url(redirect_uri="http://localhost:4711/callback"))

    answer = submit(client, page.text, "ada@example.com")

    assert answer.status_code == 302
    assert re.fullmatch(
        r"http://localhost:4711/callback\?code=[\w-]+&state=some-state",
        answer.headers["location"],
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("client_id", None),
        ("response_type", "token"),
        ("code_challenge", None),
        ("code_challenge_method", "plain"),
        ("state", None),
        ("scope", None),
        ("redirect_uri", None),
    ],
)
def test_it_names_the_parameter_that_is_wrong(
    client: httpx2.Client, authorize_url: Callable[..., str], name: str, value: str | None
) -> None:
    page = client.get(authorize_url(**{name: value}))

    assert page.status_code == 400
    assert name in page.text


def test_a_foreign_redirect_uri_is_refused(
    client: httpx2.Client, authorize_url: Callable[..., str]
) -> None:
    page = client.get(authorize_url(redirect_uri="https://relay.example/callback"))

    assert page.status_code == 400
    assert "is not supported by client" in page.text
