"""`manage.py key`: create, list, change, rotate and revoke, for people and for programs."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts import adding
from accounts.models import Account
from accounts.states import Kind
from events.models import Event
from sessions_limit import keys
from sessions_limit.models import ClientKey

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(db: None) -> Account:
    return adding.add_secret(Kind.API_KEY, "console", "sk-ant-api03-console", "ada")


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("key", *args, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def answer(*args: str) -> Any:
    return json.loads(run(*args, "--json"))


def refusal(*args: str) -> str:
    with pytest.raises(CommandError) as raised:
        run(*args)
    return str(raised.value)


def test_create_answers_the_key_once() -> None:
    made = answer("create", "--name", " laptop ")

    assert set(made) == {"id", "name", "key"}
    assert made["name"] == "laptop"
    row = ClientKey.objects.get(pk=made["id"])
    assert row.hint == made["key"][-4:]
    assert row.created_by == "command line"
    assert made["key"] not in run("list") + run("list", "--json")
    assert Event.objects.get(kind="key.create").subject == f"key:{row.pk}"


def test_create_prints_nothing_but_the_key() -> None:
    assert run("create", "--name", "laptop").strip().startswith("rk_")


@pytest.mark.parametrize("name", ["", "  ", "x" * 101])
def test_create_refuses_a_name_of_no_use(name: str) -> None:
    assert refusal("create", "--name", name).startswith("--name: ")
    assert not ClientKey.objects.exists()


def test_list_tells_the_state_of_every_key() -> None:
    past = timezone.now() - timedelta(days=1)
    keys.create("active", by="ada")
    keys.create("expired", by="ada", expires_at=past)
    keys.revoke(keys.create("revoked", by="ada")[0], by="ada")
    ClientKey.objects.filter(pk=keys.create("disabled", by="ada")[0].pk).update(enabled=False)

    listed = answer("list")

    assert [row["name"] for row in listed] == ["active", "expired", "revoked", "disabled"]
    assert [row["state"] for row in listed] == [row["name"] for row in listed]
    assert listed[1]["expires_at"] == past.isoformat()
    assert listed[2]["revoked_at"] is not None
    assert "hash" not in listed[0]
    lines = run("list").splitlines()
    assert lines[0].split()[:4] == ["id", "name", "hint", "state"]
    assert len(lines) == 5


def test_create_binds_a_key_to_labels() -> None:
    made = answer("create", "--name", "ci", "--label", "team-b", "--label", "team-a")
    run("create", "--name", "laptop")

    bound, free = answer("list")
    assert bound["labels"] == ["team-a", "team-b"]
    assert free["labels"] == []
    assert "team-a, team-b" in run("list")
    event = Event.objects.get(kind="key.create", subject=f"key:{made['id']}")
    assert event.data["labels"] == ["team-a", "team-b"]
    assert {key.name: key.labels for key in keys.load().values()} == {
        "ci": frozenset({"team-a", "team-b"}),
        "laptop": frozenset(),
    }


@pytest.mark.parametrize("label", ["", "Team", "a b", "x" * 33, "-a", "\u0661"])
def test_create_refuses_what_is_no_label(label: str) -> None:
    assert "is not a label" in refusal("create", "--name", "ci", f"--label={label}")
    assert not ClientKey.objects.exists()


def test_create_refuses_too_many_labels() -> None:
    labels = [f"--label=l{number}" for number in range(21)]

    assert "20 labels at most" in refusal("create", "--name", "ci", *labels)


def test_list_of_no_keys_is_empty() -> None:
    assert answer("list") == []


def test_revoke_takes_an_id_or_a_name() -> None:
    one, two = keys.create("one", by="ada")[0], keys.create("two", by="ada")[0]

    assert answer("revoke", str(one.pk))["state"] == "revoked"
    assert answer("revoke", "two")["id"] == two.pk

    assert not ClientKey.objects.filter(revoked_at=None).exists()


def test_a_name_may_be_used_again_after_its_key_was_revoked() -> None:
    keys.revoke(keys.create("one", by="ada")[0], by="ada")
    second = keys.create("one", by="ada")[0]

    assert answer("revoke", "one")["id"] == second.pk


def test_revoke_refuses_what_is_revoked_already() -> None:
    row = keys.create("one", by="ada")[0]
    run("revoke", str(row.pk))

    assert "is revoked already" in refusal("revoke", str(row.pk), "--json")
    assert "is revoked already" in refusal("revoke", "one")


def test_revoke_refuses_a_name_that_several_keys_have() -> None:
    keys.create("one", by="ada")
    keys.create("one", by="ada")

    assert "use the id" in refusal("revoke", "one")
    assert ClientKey.objects.filter(revoked_at=None).count() == 2


@pytest.mark.parametrize(
    "key",
    [
        "999",
        "nobody",
        "0",
        "9" * 18,
        "9" * 19,
        "9" * 5000,
        "-1",
        "\u0661",
        "1.0",
        "",
        "%",
        "\udcff",
    ],
)
def test_revoke_refuses_what_is_not_there(key: str) -> None:
    keys.create("one", by="ada")

    told = refusal("revoke", "--", key) if key.startswith("-") else refusal("revoke", key)

    assert told.startswith("there is no key")


@pytest.mark.parametrize("args", [[], ["nonsense"], ["create"], ["revoke"]])
def test_a_verb_is_needed(args: list[str]) -> None:
    with pytest.raises((CommandError, SystemExit)):
        run(*args)


TERMS = {
    "--owner": ("owner", "Ada", "Ada"),
    "--expires": ("expires_at", "2999-01-01", "2999-01-01T00:00:00+00:00"),
    "--label": ("labels", "a", ["a"]),
    "--model": ("model_patterns", "claude-haiku-*", ["claude-haiku-*"]),
    "--network": ("networks", "10.0.0.1/8", ["10.0.0.0/8"]),
    "--requests-per-minute": ("requests_per_minute", "5", 5),
    "--tokens-per-minute": ("tokens_per_minute", "6", 6),
    "--max-in-flight": ("max_in_flight", "7", 7),
    "--max-sessions": ("max_sessions", "-1", -1),
    "--tokens-per-day": ("tokens_per_day", "0", 0),
    "--tokens-per-week": ("tokens_per_week", "8", 8),
    "--tokens-per-month": ("tokens_per_month", "9", 9),
    "--usd-per-day": ("usd_per_day", "0.5", 0.5),
    "--usd-per-week": ("usd_per_week", "12.345678", 12.345678),
    "--usd-per-month": ("usd_per_month", "0", 0),
    "--time-zone": ("time_zone", "Europe/Berlin", "Europe/Berlin"),
}
GIVEN = [word for option, (_, text, _) in TERMS.items() for word in (option, text)]


def test_every_term_is_given_listed_and_cleared(account: Account) -> None:
    told = {term: value for term, _, value in TERMS.values()}

    answer("create", "--name", "ci", "--passthrough", "--account", "console", *GIVEN)
    (listed,) = answer("list")
    cleared = [f"--clear={option.removeprefix('--')}" for option in TERMS]
    bare = answer("update", "ci", "--no-passthrough", "--clear=account", *cleared)

    assert told.items() <= listed.items()
    assert (listed["pinned_account"], listed["passthrough"]) == (account.pk, True)
    assert listed["last_addresses"] == []
    run("create", "--name", "plain")
    plain = answer("list")[1]
    assert {term: bare[term] for term in told} == {term: plain[term] for term in told}
    assert (bare["pinned_account"], bare["passthrough"]) == (None, False)


def test_update_changes_what_is_given_and_nothing_else() -> None:
    row = keys.create("ci", by="ada", owner="Ada", max_sessions=2)[0]

    told = answer("update", "ci", "--name", "build", "--model", "a", "--model", "b")

    assert (told["name"], told["owner"], told["max_sessions"]) == ("build", "Ada", 2)
    assert told["model_patterns"] == ["a", "b"]
    event = Event.objects.get(kind="key.update", subject=f"key:{row.pk}")
    assert event.by == "command line"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--usd-per-day=-1"], "--usd-per-day: "),
        (["--usd-per-day", "NaN"], "--usd-per-day: "),
        (["--expires", "yesterday"], "--expires: "),
        (["--account", "nobody"], "--account: "),
        (["--network", "10.0.0.0/99"], "--network: "),
        (["--model", "\u00e9"], "--model: "),
        (["--time-zone", "Mars"], "--time-zone: "),
        (["--max-sessions", "1e9"], "--max-sessions: "),
        (["--name", " "], "--name: "),
        (["--owner", "Ada", "--clear", "owner"], "--owner is given and cleared"),
        ([], "nothing to change"),
    ],
)
def test_update_refuses_what_cannot_be(args: list[str], told: str) -> None:
    keys.create("ci", by="ada")

    assert refusal("update", "ci", *args).startswith(told)
    assert not Event.objects.filter(kind="key.update").exists()


def test_every_wrong_option_is_told_at_once() -> None:
    told = refusal("create", "--name", "", "--max-in-flight", "0")

    assert "--name: " in told
    assert "--max-in-flight: " in told


def test_rotate_shows_the_new_key_once() -> None:
    row, old = keys.create("ci", by="ada")

    made = answer("rotate", "ci", "--overlap", "1.5")
    text = run("rotate", "ci", "--overlap", "0").strip()

    assert (made["id"], made["name"]) == (row.pk, "ci")
    assert made["previous_until"] > timezone.now().isoformat()
    assert len({old, made["key"], text}) == 3
    (listed,) = answer("list")
    assert (listed["hint"], listed["previous_until"]) == (text[-4:], None)
    assert made["key"] not in run("list") + run("list", "--json")


@pytest.mark.parametrize("hours", ["-1", "nan", "inf", "721"])
def test_rotate_refuses_an_overlap_of_no_use(hours: str) -> None:
    keys.create("ci", by="ada")

    assert refusal("rotate", "ci", f"--overlap={hours}").startswith("--overlap: ")


def test_a_key_is_disabled_and_enabled() -> None:
    keys.create("ci", by="ada")

    assert answer("disable", "ci")["state"] == "disabled"
    assert answer("enable", "ci")["state"] == "active"


@pytest.mark.parametrize("verb", ["rotate", "enable", "disable", "update"])
def test_a_revoked_key_stays_as_it_is(verb: str) -> None:
    row = keys.create("ci", by="ada")[0]
    keys.revoke(row, by="ada")
    more = ["--owner=Ada"] if verb == "update" else []

    assert "is revoked" in refusal(verb, str(row.pk), *more)
