"""The models of all accounts are one list, served from what is stored."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import anthropic
import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from accounts.models import Account
from lib import redis
from relay import catalogue, model_lists, tasks
from relay.models import ModelList
from tests.relay.conftest import Relay
from tests.relay.things import asked

MODELS = "/v1/models"


def _model(name: str, day: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": f"{day}T00:00:00Z"}


def _lists(relay: Relay, name: str, *models: dict[str, Any]) -> None:
    match = {"path": MODELS, "account": f"{name}@example.com"}
    page = {"data": list(models), "has_more": False, "first_id": None, "last_id": None}
    relay.simulator.script(match, times=None, body=page)


async def _ids(relay: Relay, query: str = "") -> list[str]:
    answer = await relay.http.get(MODELS + query, headers=relay.auth)
    assert answer.status_code == 200, answer.text
    return [model["id"] for model in answer.json()["data"]]


async def _minute() -> None:
    """Let the job run as if the minute of the last one were over."""
    client = redis.for_requests()
    await client.delete(*await client.keys("models:slot:*"), "none")
    await sync_to_async(tasks.refresh_models)()


async def _make_old() -> None:
    await ModelList.objects.aupdate(fetched_at=timezone.now() - timedelta(minutes=11))


async def test_the_lists_of_the_accounts_are_merged_newest_first(relay: Relay) -> None:
    await relay.link("ada", "grace")
    _lists(relay, "ada", _model("c", "2026-03-01"), _model("a", "2026-01-01"))
    _lists(relay, "grace", _model("d", "2026-04-01"), _model("c", "2026-03-01"))

    await model_lists.refresh()

    assert await _ids(relay) == ["d", "c", "a"]


def test_models_of_the_same_day_keep_the_order_in_which_they_are_listed() -> None:
    one, two, three = (_model(name, "2026-01-01") for name in ("one", "two", "three"))
    odd = {"id": "odd", "created_at": None}

    merged = catalogue.merge([[one, two], [odd, three, two]])

    assert list(merged) == ["one", "two", "three", "odd"]


async def test_once_known_the_list_is_served_at_once_while_every_upstream_hangs(
    relay: Relay,
) -> None:
    await relay.link("ada", "grace")
    known = await _ids(relay)
    relay.simulator.script({}, times=None, delay=30)
    await _make_old()
    # As after a restart: the process knows nothing but what is stored.
    catalogue.snapshot.reset()
    relay.simulator.clear_requests()

    times = []
    for _ in range(5):
        began = time.perf_counter()
        assert await _ids(relay) == known
        times.append(time.perf_counter() - began)

    assert sorted(times)[2] < 0.1
    assert relay.simulator.requests() == []


async def test_without_any_list_a_hanging_upstream_is_a_503_in_good_time(relay: Relay) -> None:
    await relay.link("ada")
    relay.simulator.script({"path": MODELS}, times=None, delay=30)

    began = time.perf_counter()
    first = await relay.http.get(MODELS, headers=relay.auth)
    took = time.perf_counter() - began
    one = await relay.http.get(f"{MODELS}/claude-opus-5-5", headers=relay.auth)

    assert took < 3
    for answer in (first, one):
        assert answer.status_code == 503
        assert answer.headers["x-relay-error"] == "pool_unavailable"
    assert len(asked(relay, MODELS)) == 1


async def test_an_empty_pool_has_no_models_until_its_first_account_is_linked(relay: Relay) -> None:
    answer = await relay.http.get(MODELS, headers=relay.auth)
    await relay.link("ada")

    assert answer.status_code == 503
    assert "claude-opus-5-5" in await _ids(relay)


async def test_an_account_that_does_not_answer_keeps_the_list_it_has(relay: Relay) -> None:
    await relay.link("ada", "grace")
    _lists(relay, "ada", _model("a", "2026-01-01"))
    _lists(relay, "grace", _model("b", "2026-01-02"))
    await model_lists.refresh()
    await _make_old()
    relay.simulator.clear_scripts()
    relay.simulator.script({"account": "ada@example.com"}, times=None, status=500)
    _lists(relay, "grace", _model("c", "2026-01-03"))

    await model_lists.refresh()

    assert await _ids(relay) == ["c", "a"]


@pytest.mark.parametrize(
    "fault",
    [
        {"text": "<html>"},
        {"body": []},
        {"body": {"data": 7}},
        {"body": {"data": [1, {"id": 2}, {}]}},
        {"cut_after": 10},
        {"status": 401},
    ],
)
async def test_an_odd_list_does_no_harm(relay: Relay, fault: dict[str, Any]) -> None:
    await relay.link("ada", "grace")
    relay.simulator.script({"account": "ada@example.com"}, times=None, **fault)

    assert "claude-opus-5-5" in await _ids(relay)
    assert (await Account.objects.aget(name="ada")).status == "active"


async def test_the_job_asks_new_accounts_soon_and_the_others_every_ten_minutes(
    relay: Relay,
) -> None:
    await relay.link("ada")
    await _minute()
    await relay.link("grace")

    await _minute()
    soon = asked(relay, MODELS)
    await _make_old()
    await _minute()

    assert soon == ["ada", "grace"]
    assert sorted(asked(relay, MODELS)[2:]) == ["ada", "grace"]


async def test_the_list_is_paged_as_the_api_does(relay: Relay) -> None:
    await relay.link("ada")
    _lists(relay, "ada", *(_model(f"m{n}", f"2026-01-0{9 - n}") for n in range(5)))

    first = (await relay.http.get(f"{MODELS}?limit=2", headers=relay.auth)).json()
    after = await _ids(relay, "?limit=2&after_id=m1")
    before = await _ids(relay, "?limit=2&before_id=m4")

    assert [model["id"] for model in first["data"]] == ["m0", "m1"]
    assert (first["has_more"], first["first_id"], first["last_id"]) == (True, "m0", "m1")
    assert (after, before) == (["m2", "m3"], ["m2", "m3"])


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=-1", "after_id=nothing"])
async def test_a_page_that_cannot_be_is_refused(relay: Relay, query: str) -> None:
    await relay.link("ada")

    answer = await relay.http.get(f"{MODELS}?{query}", headers=relay.auth)

    assert answer.status_code == 400
    assert answer.headers["x-should-retry"] == "false"


async def test_the_official_client_lists_and_retrieves_models(relay: Relay) -> None:
    await relay.link("ada")
    async with anthropic.AsyncAnthropic(
        base_url=relay.url, api_key=relay.key, max_retries=0
    ) as sdk:
        listed = [model.id async for model in sdk.models.list(limit=3)]
        one = await sdk.models.retrieve("claude-opus-5-5")
        with pytest.raises(anthropic.NotFoundError, match="model: nothing"):
            await sdk.models.retrieve("nothing")

    assert len(listed) == len(set(listed)) > 3
    assert one.display_name == "Claude Opus 5.5"


async def test_a_limited_account_is_asked_and_an_inactive_one_is_not(relay: Relay) -> None:
    await relay.link("ada", "grace")
    await Account.objects.filter(name="ada").aupdate(status="rate_limited")
    await Account.objects.filter(name="grace").aupdate(status="inactive")

    await model_lists.refresh()

    assert asked(relay, MODELS) == ["ada"]


@pytest.mark.parametrize("path", ["/api/oauth/usage", "/api/oauth", "/api/claude_cli/bootstrap"])
async def test_what_claudes_own_programs_ask_of_claude_ai_is_404_here(
    relay: Relay, path: str
) -> None:
    await relay.link("ada")
    relay.simulator.clear_requests()

    answer = await relay.http.get(path, headers=relay.auth)

    assert answer.status_code == 404
    assert answer.headers["x-relay-error"] == "not_found"
    assert relay.simulator.requests() == []


async def test_a_list_too_deep_to_be_served_is_not_stored(relay: Relay) -> None:
    await relay.link("ada", "grace")
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    _lists(relay, "ada", _model("odd", "2026-04-01") | {"capabilities": deep})
    _lists(relay, "grace", _model("c", "2026-03-01"))

    await model_lists.refresh()

    assert await _ids(relay) == ["c"]


async def test_a_limit_of_thousands_of_digits_is_refused(relay: Relay) -> None:
    await relay.link("ada")
    limit = "000001000" + "9" * 5000

    answer = await relay.http.get(f"{MODELS}?limit={limit}", headers=relay.auth)

    assert answer.status_code == 400
