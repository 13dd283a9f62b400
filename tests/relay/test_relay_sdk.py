"""The official Python client works through the relay, streaming and not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anthropic
import pytest

from tests.relay.conftest import Relay

ASK = {"model": "claude-opus-5-5", "max_tokens": 50}


@pytest.fixture
async def client(relay: Relay) -> AsyncIterator[anthropic.AsyncAnthropic]:
    await relay.add_api_key("console")
    async with anthropic.AsyncAnthropic(
        base_url=relay.url, api_key=relay.key, max_retries=0
    ) as client:
        yield client


def _say(text: str) -> list[anthropic.types.MessageParam]:
    return [{"role": "user", "content": text}]


async def test_it_gets_a_message(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(messages=_say("reply: hello there"), **ASK)

    assert message.content[0].text == "hello there"
    assert message.usage.output_tokens > 0


async def test_it_streams_and_adds_up_what_the_stream_says(
    client: anthropic.AsyncAnthropic,
) -> None:
    async with client.messages.stream(messages=_say("reply: hello there"), **ASK) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()

    assert text == "hello there"
    assert final.stop_reason == "end_turn"


async def test_it_counts_tokens_and_lists_models(client: anthropic.AsyncAnthropic) -> None:
    counted = await client.messages.count_tokens(model=ASK["model"], messages=_say("hello"))
    models = [model.id async for model in client.models.list()]
    one = await client.models.retrieve(models[0])

    assert counted.input_tokens > 0
    assert one.id in models


async def test_it_understands_the_relays_own_refusals(relay: Relay) -> None:
    async with anthropic.AsyncAnthropic(base_url=relay.url, api_key="rk_wrong") as client:
        with pytest.raises(anthropic.AuthenticationError, match="Invalid relay key"):
            await client.messages.create(messages=_say("hello"), **ASK)


async def test_a_key_given_as_a_bearer_token_serves_as_well(relay: Relay) -> None:
    await relay.link("ada")
    async with anthropic.AsyncAnthropic(base_url=relay.url, auth_token=relay.key) as client:
        message = await client.messages.create(messages=_say("reply: yes"), **ASK)

    assert message.content[0].text == "yes"
    assert relay.simulator.seen(relay.key) == 0
