"""`manage.py key`: create, list and revoke, for people and for programs."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from events.models import Event
from sessions_limit import keys
from sessions_limit.models import ClientKey

pytestmark = pytest.mark.django_db


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
    assert "there is no key 'one'" in refusal("revoke", "one")


def test_revoke_refuses_a_name_that_several_keys_have() -> None:
    keys.create("one", by="ada")
    keys.create("one", by="ada")

    assert "use the id" in refusal("revoke", "one")
    assert ClientKey.objects.filter(revoked_at=None).count() == 2


@pytest.mark.parametrize(
    "key", ["999", "nobody", "0", "9" * 18, "9" * 19, "9" * 5000, "-1", "\u0661", "1.0", "", "%"]
)
def test_revoke_refuses_what_is_not_there(key: str) -> None:
    keys.create("one", by="ada")

    told = refusal("revoke", "--", key) if key.startswith("-") else refusal("revoke", key)

    assert told.startswith("there is no key")


@pytest.mark.parametrize("args", [[], ["nonsense"], ["create"], ["revoke"]])
def test_a_verb_is_needed(args: list[str]) -> None:
    with pytest.raises((CommandError, SystemExit)):
        run(*args)
