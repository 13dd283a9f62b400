"""The official SDK takes the simulator for the real thing."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest

from tests.support.simulator import Simulator

PROMPT = [{"role": "user", "content": "hi"}]
HELLO = "Hello from the simulator. You sent 1 messages."


@pytest.fixture
def sdk(simulator: Simulator) -> Iterator[anthropic.Anthropic]:
    key = simulator.api_key("sdk")
    with anthropic.Anthropic(api_key=key, base_url=simulator.url, max_retries=0) as made:
        yield made


def test_it_reads_a_message(sdk: anthropic.Anthropic) -> None:
    answer = sdk.messages.create(model="claude-opus-5-5", max_tokens=64, messages=PROMPT)

    assert answer.content[0].text == HELLO
    assert answer.stop_reason == "end_turn"


def test_it_reads_a_stream(sdk: anthropic.Anthropic) -> None:
    with sdk.messages.stream(model="claude-opus-5-5", max_tokens=64, messages=PROMPT) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert text == HELLO
    assert final.usage.output_tokens > 1


def test_it_reads_a_tool_call(sdk: anthropic.Anthropic) -> None:
    tool = {"name": "Bash", "input_schema": {"type": "object", "properties": {}}}
    prompt = [{"role": "user", "content": "bash: ls -l"}]

    with sdk.messages.stream(
        model="claude-opus-5-5", max_tokens=64, messages=prompt, tools=[tool]
    ) as stream:
        final = stream.get_final_message()

    assert final.stop_reason == "tool_use"
    assert final.content[0].input["command"] == "ls -l"


def test_it_counts_tokens_and_lists_models(sdk: anthropic.Anthropic) -> None:
    count = sdk.messages.count_tokens(model="claude-opus-5-5", messages=PROMPT)
    models = [model.id for model in sdk.models.list(limit=3)]

    assert count.input_tokens > 0
    assert "claude-opus-5-5" in models
    assert len(models) > 3


def test_it_understands_the_errors(sdk: anthropic.Anthropic, simulator: Simulator) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model: gpt"):
        sdk.messages.create(model="gpt", max_tokens=64, messages=PROMPT)

    simulator.script({}, status=429)
    with pytest.raises(anthropic.RateLimitError):
        sdk.messages.create(model="claude-opus-5-5", max_tokens=64, messages=PROMPT)


def test_it_raises_on_an_error_inside_a_stream(
    sdk: anthropic.Anthropic, simulator: Simulator
) -> None:
    error = {"type": "overloaded_error", "message": "Overloaded"}
    simulator.script({}, error_event=error, after_events=4)

    with (
        pytest.raises(anthropic.APIStatusError, match="Overloaded"),
        sdk.messages.stream(model="claude-x", max_tokens=64, messages=PROMPT) as stream,
    ):
        stream.get_final_message()
