"""Batches belong to an organisation, end when they are looked at, and answer in lines."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import httpx2
import pytest

from tests.support.simulator import Simulator

ASK = {"model": "claude-opus-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def sdk(simulator: Simulator) -> Iterator[anthropic.Anthropic]:
    key = simulator.api_key("sdk")
    with anthropic.Anthropic(api_key=key, base_url=simulator.url, max_retries=0) as made:
        yield made


def _create(sdk: anthropic.Anthropic, *ids: str) -> str:
    return sdk.messages.batches.create(
        requests=[{"custom_id": name, "params": ASK} for name in ids]  # type: ignore[typeddict-item]
    ).id


def test_a_batch_is_done_when_it_is_looked_at(
    sdk: anthropic.Anthropic, simulator: Simulator
) -> None:
    made = _create(sdk, "a", "b")

    batch = sdk.messages.batches.retrieve(made)
    lines = list(sdk.messages.batches.results(made))

    assert batch.processing_status == "ended"
    assert batch.results_url == f"{simulator.url}/v1/messages/batches/{made}/results"
    assert [(line.custom_id, line.result.type) for line in lines] == [
        ("a", "succeeded"),
        ("b", "succeeded"),
    ]


def test_an_endless_batch_ends_when_it_is_canceled(sdk: anthropic.Anthropic) -> None:
    made = _create(sdk, "endless")

    before = sdk.messages.batches.retrieve(made)
    canceling = sdk.messages.batches.cancel(made)
    lines = list(sdk.messages.batches.results(made))

    assert (before.processing_status, before.results_url) == ("in_progress", None)
    assert canceling.processing_status == "canceling"
    assert [line.result.type for line in lines] == ["canceled"]


def test_lists_are_newest_first_and_paged(sdk: anthropic.Anthropic) -> None:
    made = [_create(sdk, str(n)) for n in range(5)]

    paged = [batch.id for batch in sdk.messages.batches.list(limit=2)]
    page = sdk.messages.batches.list(limit=2, before_id=made[0])

    assert paged == made[::-1]
    assert [batch.id for batch in page.data] == [made[2], made[1]]
    assert page.has_more


def test_another_organisation_sees_nothing(sdk: anthropic.Anthropic, simulator: Simulator) -> None:
    made = _create(sdk, "a")
    headers = {"x-api-key": simulator.api_key("other"), "anthropic-version": "2023-06-01"}
    url = f"{simulator.url}/v1/messages/batches"

    one = httpx2.get(f"{url}/{made}", headers=headers)
    several = httpx2.get(url, headers=headers)

    assert one.status_code == 404
    assert several.json()["data"] == []


def test_a_deleted_batch_is_gone(sdk: anthropic.Anthropic) -> None:
    made = _create(sdk, "a")
    sdk.messages.batches.retrieve(made)

    sdk.messages.batches.delete(made)

    with pytest.raises(anthropic.NotFoundError):
        sdk.messages.batches.retrieve(made)
