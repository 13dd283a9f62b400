"""First-run set-up: the one-time link makes one operator, once, in time, and nothing else does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from events.models import Event
from proxy_project import setup
from proxy_project.models import SetupLink

PASSWORD = "a long pass phrase"
FILLED = {"username": "anna", "password1": PASSWORD, "password2": PASSWORD}
pytestmark = pytest.mark.django_db


@pytest.fixture
def path() -> str:
    link = setup.make_link("http://relay.example/")
    assert link is not None
    assert link.startswith("http://relay.example/setup/")
    return link.removeprefix("http://relay.example")


def test_the_link_creates_an_operator_and_signs_in(client: Client, path: str) -> None:
    page = client.get(path)
    answer = client.post(path, FILLED)

    operator = User.objects.get()
    assert page.status_code == 200
    assert "anna" not in page.content.decode()
    assert answer.headers["location"] == "/"
    assert (operator.is_staff, operator.is_superuser) == (True, True)
    assert operator.password.startswith("argon2")
    assert client.get("/").status_code == 200
    assert Event.objects.get().kind == "operator.created"


def test_the_link_works_once(client: Client, path: str) -> None:
    client.post(path, FILLED)

    again = Client().post(path, FILLED | {"username": "mallory"})

    assert again.status_code == 404
    assert "already has an operator" in again.content.decode()
    assert User.objects.count() == 1


def test_a_used_link_does_not_come_back_with_its_operator_gone(client: Client, path: str) -> None:
    client.post(path, FILLED)
    User.objects.all().delete()

    answer = Client().post(path, FILLED)

    assert answer.status_code == 404
    assert not User.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_tabs_at_once_make_one_operator(path: str) -> None:
    def send(name: str) -> int:
        try:
            return Client().post(path, FILLED | {"username": name}).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as tabs:
        list(tabs.map(send, ("anna", "berta")))

    assert User.objects.count() == 1


def test_an_expired_link_is_refused(client: Client) -> None:
    early = timezone.now() - setup.VALID - timedelta(seconds=1)
    link = setup.make_link("", now=early)
    assert link is not None

    answer = client.post(link, FILLED)

    assert answer.status_code == 404
    assert "manage.py setup_link" in answer.content.decode()
    assert not User.objects.exists()


def test_a_new_link_replaces_the_old_one(client: Client, path: str) -> None:
    newer = setup.make_link("")
    assert newer is not None

    assert client.get(path).status_code == 404
    assert client.get(newer).status_code == 200


@pytest.mark.parametrize("path", ["/setup/", "/setup/wrong", "/setup/" + "x" * 5000])
def test_without_a_valid_link_nothing_is_created(client: Client, path: str) -> None:
    setup.make_link("")

    answer = client.post(path, FILLED)

    assert answer.status_code == 404
    assert not User.objects.exists()


def test_the_token_is_not_in_the_database(path: str) -> None:
    token = path.rpartition("/")[2]

    row = SetupLink.objects.get()

    assert len(token) >= 43
    assert token not in row.hash


def test_no_link_is_made_when_there_is_an_operator(admin_user: User) -> None:
    assert setup.make_link("http://relay.example") is None
    with pytest.raises(CommandError, match="operator already"):
        call_command("setup_link")


@pytest.mark.parametrize("password", ["short", "password1234"])
def test_a_weak_password_is_refused(client: Client, path: str, password: str) -> None:
    given = {"username": "anna", "password1": password, "password2": password}

    answer = client.post(path, given)

    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode()
    assert not User.objects.exists()
    assert client.post(path, FILLED).status_code == 302


def test_the_command_prints_a_link_that_works(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("setup_link", base="http://relay.example")

    path = capsys.readouterr().out.strip().removeprefix("http://relay.example")
    assert client.get(path).status_code == 200
