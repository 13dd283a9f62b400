"""Admin tokens: by the command line and by the console; shown once, kept as a hash."""

from __future__ import annotations

import io
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from events.models import Event
from proxy_project import tokens
from proxy_project.models import AdminToken

TOKEN = re.compile(r"adm_[\w-]{43}")
HOSTILE = "<script>alert(1)</script>\"' onclick=x"
pytestmark = pytest.mark.django_db


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("token", *args, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def answer(*args: str) -> Any:
    return json.loads(run(*args, "--json"))


def refusal(*args: str) -> str:
    with pytest.raises(CommandError) as raised:
        run(*args)
    return str(raised.value)


@pytest.fixture
def console(operator: User) -> Client:
    client = Client()
    client.force_login(operator)
    return client


def test_the_command_shows_a_token_once() -> None:
    made = answer("create", "--name", " deploy ", "--expires", "30")

    row = AdminToken.objects.get(pk=made["id"])
    assert tokens.authenticate(made["token"]) == row
    assert (row.name, row.created_by, row.hint) == ("deploy", "command line", made["token"][-4:])
    assert row.expires_at is not None
    assert abs(row.expires_at - timezone.now() - timedelta(days=30)) < timedelta(minutes=1)
    assert made["token"] not in run("list") + run("list", "--json")
    assert TOKEN.fullmatch(run("create", "--name", "second").strip())
    event = Event.objects.filter(kind="token.create").last()
    assert event is not None
    assert event.subject == f"token:{row.pk}"


def test_the_command_lists_the_state_of_every_token() -> None:
    tokens.create("active", by="ada")
    tokens.create("expired", by="ada", expires_at=timezone.now() - timedelta(1))
    tokens.revoke(tokens.create("revoked", by="ada")[0], by="ada")

    listed = answer("list")

    assert [row["state"] for row in listed] == [row["name"] for row in listed]
    assert "hash" not in listed[0]
    assert run("list").splitlines()[0].split()[:4] == ["id", "name", "hint", "state"]


def test_the_command_revokes_by_id_or_name() -> None:
    one, text = tokens.create("one", by="ada")
    tokens.create("two", by="ada")
    tokens.create("two", by="ada")

    assert answer("revoke", "one")["state"] == "revoked"
    assert tokens.authenticate(text) is None
    assert "is revoked already" in refusal("revoke", str(one.pk))
    assert "use the id" in refusal("revoke", "two")
    for nobody in ("999", "nobody", "9" * 30, ""):
        assert "there is no token" in refusal("revoke", nobody)
    assert Event.objects.filter(kind="token.revoke").count() == 1


@pytest.mark.parametrize(
    "args", [["--name", " "], ["--name", "x" * 101], ["--name", "a", "--expires", "0"]]
)
def test_the_command_refuses_what_is_of_no_use(args: list[str]) -> None:
    assert refusal("create", *args).startswith(args[-2])
    assert not AdminToken.objects.exists()


def test_the_console_shows_a_token_once(console: Client) -> None:
    made = console.post("/tokens/create/", {"name": "deploy", "lifetime": "90"})
    (text,) = set(TOKEN.findall(made.content.decode()))
    later = console.get("/tokens/").content.decode()

    assert "no-store" in made.headers["cache-control"]
    assert tokens.authenticate(text) == AdminToken.objects.get()
    assert AdminToken.objects.get().expires_at is not None
    assert text not in later
    assert f"adm_…{text[-4:]}" in later


def test_the_console_asks_before_it_revokes(console: Client) -> None:
    token, text = tokens.create(HOSTILE, by=HOSTILE)
    path = f"/tokens/{token.pk}/revoke/"

    asked = console.get(path).content.decode()
    pages = asked + console.get("/tokens/").content.decode()
    still = tokens.authenticate(text)
    done = console.post(path, follow=True).content.decode()
    again = console.post(path, follow=True).content.decode()

    assert "cannot be undone" in asked
    assert "<script>alert" not in pages
    assert still is not None
    assert tokens.authenticate(text) is None
    assert "is revoked" in done
    assert "was revoked before" in again


@pytest.mark.parametrize("given", [{}, {"name": "\u202e"}, {"name": "a", "lifetime": "1"}])
def test_the_console_makes_no_token_of_a_wrong_form(console: Client, given: dict[str, str]) -> None:
    assert "errorlist" in console.post("/tokens/create/", given).content.decode()
    assert not AdminToken.objects.exists()


@pytest.mark.parametrize("path", ["/tokens/", "/tokens/create/", "/tokens/1/revoke/"])
def test_the_pages_are_for_operators(client: Client, path: str) -> None:
    client.force_login(User.objects.create_user("guest"))

    assert client.get(path).status_code == 302
    assert client.post(path).status_code == 302
    assert not AdminToken.objects.exists()


def test_a_token_does_not_open_the_console(client: Client) -> None:
    _, text = tokens.create("deploy", by="ada")

    answer = client.get("/accounts/", headers={"authorization": f"Bearer {text}"})

    assert answer.status_code == 302
