"""A request goes only to accounts that have its model, and a client is told which there are."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from accounts.pool import Member
from accounts.states import Kind, Status
from providers.base import Endpoint
from relay import capabilities, model_lists
from relay.capabilities import Ability, Offers
from relay.models import ModelList
from tests.relay.conftest import Relay

OPUS, SONNET = "claude-opus-5-5", "claude-sonnet-4-5-20250929"
MEMBER = Member(
    id=1,
    name="ada",
    kind=Kind.OAUTH,
    status=Status.ACTIVE,
    limited_until=None,
    probe_at=None,
    cooldown_until=None,
    credential=uuid4(),
    secret="s",
)
OFFERS = Offers({1: {name: name for name in ("claude-opus-5-5", "claude-sonnet-4-5")}})


def _lists(relay: Relay, name: str, *models: str) -> None:
    match = {"path": "/v1/models", "account": f"{name}@example.com"}
    data = [{"type": "model", "id": model, "display_name": model} for model in models]
    relay.simulator.script(match, times=None, body={"data": data, "has_more": False})


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (OPUS, True),
        ("claude-opus-5-5[1m]", True),
        ("claude-opus-5-5-latest", True),
        (SONNET, True),
        ("claude-sonnet-4-5", True),
        ("claude-haiku-5-5", False),
        ("claude-opus-5", False),
    ],
)
def test_a_model_is_known_by_each_of_its_names(model: str, expected: bool) -> None:
    assert OFFERS.has(MEMBER, model) is expected


def test_an_account_that_does_not_say_is_taken_to_have_every_model() -> None:
    assert Offers().has(MEMBER, "anything")
    assert not Offers().lists(MEMBER, "anything")


@pytest.mark.parametrize(
    ("mapped", "model", "expected"),
    [
        ((("claude-*", "glm-5"),), OPUS, True),
        ((("claude-*", "glm-5"),), "gpt-9", False),
        ((), "gpt-9", True),
    ],
)
def test_a_compatible_account_has_what_its_map_names(
    mapped: tuple[tuple[str, str], ...], model: str, expected: bool
) -> None:
    endpoint = Endpoint("https://models.example.com", model_map=mapped)

    assert Offers().has(replace(MEMBER, endpoint=endpoint), model) is expected


@pytest.mark.parametrize(
    ("listed", "ability"),
    [
        ({"id": "m"}, Ability("m", "m", None, None, None, None)),
        (
            {
                "id": "m",
                "display_name": "M",
                "max_input_tokens": 1000000,
                "max_tokens": 128000,
                "capabilities": {
                    "image_input": {"supported": True},
                    "thinking": {"supported": False},
                },
            },
            Ability("m", "M", 1000000, 128000, True, False),
        ),
        (
            {
                "id": "m",
                "display_name": 7,
                "max_input_tokens": "many",
                "max_tokens": True,
                "capabilities": {"image_input": 1, "thinking": {"supported": "yes"}},
            },
            Ability("m", "m", None, None, None, None),
        ),
    ],
)
def test_odd_fields_of_a_list_count_as_not_said(listed: dict[str, Any], ability: Ability) -> None:
    assert capabilities.read(listed) == ability


async def test_requests_go_only_to_accounts_that_have_the_model(relay: Relay) -> None:
    await relay.link("ada", "grace")
    _lists(relay, "ada", "claude-haiku-5-5-20260102")
    _lists(relay, "grace", OPUS)
    await model_lists.refresh()

    for number in range(3):
        answer = await relay.ask(session=f"s{number}")
        assert answer.status_code == 200

    assert relay.served() == ["grace"] * 3
    answer = await relay.ask(model="claude-fable-9")
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (404, "not_found_error")
    assert answer.headers["x-should-retry"] == "false"
    assert "claude-fable-9" in error["message"]
    # Not every model is also served under its name without the day.
    assert "claude-haiku-5-5-20260102, claude-opus-5-5" in error["message"]
    assert relay.served() == ["grace"] * 3


async def test_a_model_that_is_only_spent_is_limited_and_not_unknown(relay: Relay) -> None:
    await relay.link("ada", "grace")
    _lists(relay, "ada", "claude-haiku-5-5")
    _lists(relay, "grace", OPUS)
    await model_lists.refresh()
    relay.simulator.limit("grace@example.com", {"5h": {"status": "rejected"}})

    first, second = await relay.ask(), await relay.ask()

    assert {first.status_code, second.status_code} == {429}
    assert relay.served() == ["grace"]


async def test_a_new_model_is_asked_for_before_it_is_refused(relay: Relay) -> None:
    await relay.link("ada")
    _lists(relay, "ada", "claude-haiku-5-5")
    await model_lists.refresh()
    relay.simulator.clear_scripts()
    _lists(relay, "ada", "claude-haiku-5-5", OPUS)
    await sync_to_async(_age_lists)()

    answer = await relay.ask()

    assert answer.status_code == 200


def _age_lists() -> None:
    ModelList.objects.update(fetched_at=timezone.now() - timedelta(minutes=2))
