"""What is recorded of an answer is what the official client counts, whatever the answer holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from anthropic._models import construct_type_unchecked
from anthropic.lib.streaming import _beta_messages
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent

from relay import spent
from relay.meter import StreamMeter, Usage, read_whole
from relay.spent import Part, Spent

GOLDEN = {path.stem: path.read_bytes() for path in (Path(__file__).parent / "golden").glob("*.sse")}


def metered(stream: bytes, size: int = 1 << 20) -> Spent:
    meter = StreamMeter()
    for at in range(0, len(stream), size):
        meter.feed(stream[at : at + size])
    return spent.read(meter.usage, meter.model)


def accumulated(stream: bytes) -> BetaMessage:
    """Return the message that the official client makes of a stream."""
    message: Any = None
    buffers: dict[int, bytes] = {}
    known = {"message_start", "message_delta", "message_stop"}
    known |= {f"content_block_{part}" for part in ("start", "delta", "stop")}
    for line in stream.decode().splitlines():
        if not line.startswith("data: "):
            continue
        data = json.loads(line.removeprefix("data: "))
        # The client's own decoder drops what it does not know before it accumulates.
        if data["type"] in known:
            event: Any = construct_type_unchecked(type_=BetaRawMessageStreamEvent, value=data)
            message = _beta_messages.accumulate_event(
                event=event, current_snapshot=message, json_bufs=buffers, request_headers={}
            )
    return message


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_a_stream_counts_as_the_official_client_counts_it(name: str) -> None:
    theirs = accumulated(GOLDEN[name]).usage

    ours = metered(GOLDEN[name])

    assert (ours.input_tokens, ours.output_tokens) == (theirs.input_tokens, theirs.output_tokens)
    assert ours.cache_read_tokens == theirs.cache_read_input_tokens
    assert ours.cache_write_5m_tokens is not None
    assert ours.cache_write_1h_tokens is not None
    written = ours.cache_write_5m_tokens + ours.cache_write_1h_tokens
    assert written == theirs.cache_creation_input_tokens
    assert theirs.cache_creation is not None
    assert ours.cache_write_1h_tokens == theirs.cache_creation.ephemeral_1h_input_tokens
    tools, details = theirs.server_tool_use, theirs.output_tokens_details
    assert ours.web_searches == (tools and tools.web_search_requests)
    assert ours.web_fetches == (tools and tools.web_fetch_requests)
    assert ours.thinking_tokens == (details and details.thinking_tokens)
    assert ours.service_tier == (theirs.service_tier or "")
    assert ours.speed == (theirs.speed or "")
    assert ours.geo == (theirs.inference_geo or "")
    assert len(ours.parts) == len(theirs.iterations or [])


@pytest.mark.parametrize("name", sorted(GOLDEN))
@pytest.mark.parametrize("size", [1, 7, 100])
def test_pieces_of_any_size_count_the_same(name: str, size: int) -> None:
    assert metered(GOLDEN[name], size) == metered(GOLDEN[name])


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_a_whole_answer_counts_like_its_stream(name: str) -> None:
    message = accumulated(GOLDEN[name])

    usage, model = read_whole(message.to_json().encode())

    assert spent.read(usage, model) == metered(GOLDEN[name])


def test_a_fallback_says_which_model_answered_and_what_each_one_used() -> None:
    used = metered(GOLDEN["fallback"])

    assert used.model == "claude-opus-5-5"
    assert used.parts == (
        Part("message", "claude-fable-5-2", 100, 12, 0, 0, 0),
        Part("fallback_message", "claude-opus-5-5", 100, 58, 0, 10, 30),
    )


def test_a_compaction_is_a_part_and_not_in_the_counts() -> None:
    used = metered(GOLDEN["compaction"])

    assert (used.input_tokens, used.output_tokens) == (23000, 1000)
    assert used.parts[0] == Part("compaction", "", 180000, 3500, 0, 0, 0)


@pytest.mark.parametrize(
    "odd",
    [
        {"cache_creation": "no"},
        {"cache_creation": {"ephemeral_1h_input_tokens": -1}},
        {"server_tool_use": [], "output_tokens_details": {"thinking_tokens": "many"}},
        {"service_tier": {"a": 1}, "speed": 7, "inference_geo": "x\nforged"},
        {"iterations": [{"type": "message", "input_tokens": -5}, {}]},
        {"iterations": {"a": 1}},
        {"iterations": [{}] * 10_000},
    ],
)
def test_what_is_odd_never_costs_the_counts_beside_it(odd: dict[str, Any]) -> None:
    body = {
        "usage": {"input_tokens": 5, "output_tokens": 7, "cache_creation_input_tokens": 3} | odd
    }

    used = spent.read(*read_whole(json.dumps(body).encode()))

    assert (used.input_tokens, used.output_tokens) == (5, 7)
    assert (used.cache_write_5m_tokens, used.cache_write_1h_tokens) == (3, 0)
    assert (used.service_tier, used.speed, used.geo, used.parts) == ("", "", "", ())


def test_more_for_an_hour_than_was_written_is_not_believed() -> None:
    usage = Usage(1, 1, 0, 10, {"ephemeral_1h_input_tokens": 99})

    used = spent.read(usage, "m")

    assert (used.cache_write_5m_tokens, used.cache_write_1h_tokens) == (0, 10)


def test_no_name_of_a_part_holds_what_no_database_takes() -> None:
    parts = [{"type": "a\0", "model": "m\0"}, {"type": "message", "model": "m"}]

    used = spent.read(Usage(1, 1, iterations=parts), "m")

    assert [(part.type, part.model) for part in used.parts] == [("", ""), ("message", "m")]


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_a_stream_that_came_as_a_whole_counts_like_any(name: str) -> None:
    assert spent.read(*read_whole(GOLDEN[name])) == metered(GOLDEN[name])
