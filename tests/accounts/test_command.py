"""manage.py account, as an operator and as a script uses it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import Account
from tests.support.simulator import Simulator

ADA = "ada@example.com"
pytestmark = pytest.mark.django_db(transaction=True)


class Paste(io.StringIO):
    """A standard input that approves the address which the command has shown by then."""

    def __init__(self, simulator: Simulator, shown: io.StringIO) -> None:
        super().__init__()
        self.simulator, self.shown = simulator, shown

    def readline(self, size: int | None = -1, /) -> str:
        url = next(line for line in self.shown.getvalue().splitlines() if line.startswith("http"))
        return self.simulator.authorize(url, ADA) + "\n"


def run(
    monkeypatch: pytest.MonkeyPatch, *words: str, stdin: str | io.StringIO = ""
) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    given = io.StringIO(stdin) if isinstance(stdin, str) else stdin
    monkeypatch.setattr("sys.stdin", given)
    call_command("account", *words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def answer(monkeypatch: pytest.MonkeyPatch, *words: str, stdin: str = "") -> Any:
    return json.loads(run(monkeypatch, *words, "--json", stdin=stdin)[0])


def test_an_account_is_added_listed_disabled_enabled_and_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = "sk-ant-api03-secret"
    added = answer(monkeypatch, "add", "--kind", "api_key", "--name", "one", stdin=f"{key}\n")
    assert (added["name"], added["kind"], added["status"]) == ("one", "api_key", "active")

    (listed,) = answer(monkeypatch, "list")
    assert listed == added
    assert {"reason", "limited_until", "expires_at", "last_used_at"} <= set(listed)
    assert key not in json.dumps(listed)

    disabled = answer(monkeypatch, "disable", "one")
    assert (disabled["status"], disabled["reason"]) == ("inactive", "admin")
    assert answer(monkeypatch, "enable", str(added["id"]))["status"] == "active"
    assert answer(monkeypatch, "remove", "one", "--yes")["removed"] is True
    assert answer(monkeypatch, "list") == []


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_login_is_linked_without_a_browser(
    monkeypatch: pytest.MonkeyPatch, simulator: Simulator, flags: list[str]
) -> None:
    simulator.person(ADA)
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stdin", Paste(simulator, err if flags else out))

    call_command("account", "link", "--name", "mine", *flags, stdout=out, stderr=err)

    account = Account.objects.get()
    assert (account.name, account.email) == ("mine", ADA)
    if flags:
        assert json.loads(out.getvalue())["expires_at"].endswith("+00:00")
    else:
        assert "mine (id" in out.getvalue()


def test_a_credentials_file_is_added_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"claudeAiOauth": {"accessToken": "a", "refreshToken": "r"}})

    out, err = run(monkeypatch, "add", "--kind", "oauth", "--name", "mine", stdin=text)

    assert "mine (id" in out
    assert "held twice" in err


def test_a_token_is_refreshed(
    monkeypatch: pytest.MonkeyPatch, account: Account, simulator: Simulator
) -> None:
    assert answer(monkeypatch, "refresh", account.name)["status"] == "active"
    assert simulator.token_ledger()["refreshes"] == 1


def test_the_list_is_readable(monkeypatch: pytest.MonkeyPatch, account: Account) -> None:
    head, line = run(monkeypatch, "list")[0].splitlines()

    assert head.split()[:4] == ["id", "name", "kind", "status"]
    assert line.split()[1:4] == [account.name, "oauth", "active"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["enable", "nobody"], "There is no account 'nobody'"),
        (["enable", "99999999999999999999"], "There is no account"),
        (["refresh", "one"], "there is nothing to refresh"),
        (["enable", "one"], "one is active, not inactive"),
        (["remove", "one"], "Nothing was removed"),
        (["add", "--kind", "api_key", "--name", "two"], "There is no secret"),
        (["add", "--kind", "oauth", "--name", "two"], "not a credentials file"),
        (["link"], "This is not a code"),
        (["add", "--kind", "cloud"], "invalid choice"),
    ],
)
def test_what_goes_wrong_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    run(monkeypatch, "add", "--kind", "api_key", "--name", "one", stdin="secret")

    with pytest.raises(CommandError, match=said) as raised:
        run(monkeypatch, *words)

    assert raised.value.returncode == 1
    assert Account.objects.filter(deleted_at=None).count() == 1
