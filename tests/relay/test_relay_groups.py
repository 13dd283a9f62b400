"""Strategies and labels as clients meet them: who serves, who is next, and who never does."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async

from relay import model_lists
from sessions_limit import keys
from tests.relay.conftest import Relay


async def test_priority_fails_over_in_order_for_its_family_of_models(
    relay: Relay, settings: Any
) -> None:
    strategies = {"routing_strategies": {"opus": "priority"}}
    settings.CONFIG = settings.CONFIG.model_copy(update=strategies)
    await relay.link("ada", "grace", "linus")
    await relay.set("ada", priority=3)
    await relay.set("grace", priority=2)
    await relay.set("linus", priority=1)

    for number in range(3):
        await relay.ask(session=f"o{number}")
    relay.simulator.script({"account": "linus@example.com"}, status=500)
    await relay.ask(session="o3")
    opus = relay.served()
    relay.simulator.clear_requests()
    for number in range(3):
        await relay.ask(session=f"h{number}", model="claude-haiku-5-5")

    assert opus == ["linus", "linus", "linus", "linus", "grace"]
    assert sorted(relay.served()) == ["ada", "grace", "linus"]


async def test_a_key_bound_to_a_label_is_served_by_its_group_only(relay: Relay) -> None:
    await relay.link("ada", "grace")
    await relay.set("grace", labels=["team-b"])
    _, bound = await sync_to_async(keys.create)(name="b", by="test", labels=["team-b"])
    _, lost = await sync_to_async(keys.create)(name="c", by="test", labels=["team-c"])
    headers = {"authorization": f"Bearer {bound}"}

    answers = [await relay.ask(session=f"s{number}", headers=headers) for number in range(3)]
    relay.simulator.script({"account": "grace@example.com"}, status=500)
    failed = await relay.ask(session="s0", headers=headers)
    refused = await relay.ask(headers={"authorization": f"Bearer {lost}"})
    batch = await relay.http.post(
        "/v1/messages/batches",
        content=b"{}",
        headers=relay.auth | {"authorization": f"Bearer {lost}"},
    )

    assert {answer.status_code for answer in answers} == {200}
    assert set(relay.served()) == {"grace"}
    assert failed.status_code == 500
    for answer in (refused, batch):
        assert answer.status_code == 503
        assert answer.headers["x-relay-error"] == "pool_unavailable"
        assert answer.json()["error"]["message"] == "No account of this relay may serve this key."


async def test_a_key_bound_to_a_label_is_shown_the_models_of_its_group(relay: Relay) -> None:
    await relay.link("ada", "grace")
    for name, model in (("ada", "claude-opus-5-5"), ("grace", "claude-haiku-5-5")):
        await relay.set(name, labels=[name])
        listed = {"data": [{"type": "model", "id": model}], "has_more": False}
        only = {"account": f"{name}@example.com", "path": "/v1/models"}
        relay.simulator.script(only, times=None, status=200, body=listed)
    await model_lists.refresh()
    _, key = await sync_to_async(keys.create)("graces", by="test", labels=["grace"])
    auth = {"x-api-key": key}

    listed = (await relay.http.get("/v1/models", headers=auth)).json()["data"]
    other = await relay.http.get("/v1/models/claude-opus-5-5", headers=auth)

    assert [model["id"] for model in listed] == ["claude-haiku-5-5"]
    assert other.status_code == 404
    assert len((await relay.http.get("/v1/models", headers=relay.auth)).json()["data"]) == 2
