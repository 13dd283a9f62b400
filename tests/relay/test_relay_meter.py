"""What a stream used, read beside it: whatever its pieces, its line ends and its junk."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import sse
from relay.meter import LONGEST_TAIL, StreamMeter, Usage, read_whole


def event(name: str, **data: Any) -> bytes:
    text = json.dumps({"type": name} | data, ensure_ascii=False)
    return f"event: {name}\ndata: {text}\n\n".encode()


START = event(
    "message_start",
    message={
        "id": "msg_01",
        "model": "claude-opus-5",
        "content": [],
        "usage": {
            "input_tokens": 25,
            "cache_creation_input_tokens": 7,
            "cache_read_input_tokens": 11,
            "cache_creation": {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 1,
            "service_tier": "standard",
        },
    },
)
TEXT = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
HELLO = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Grüße 😀"})
TRAP = event(
    "content_block_delta",
    index=0,
    delta={
        "type": "text_delta",
        "text": 'event: error\n\ndata: {"type":"message_delta","usage":{"output_tokens":9999}}\n\n'
        '{"type":"message_stop"}',
    },
)
TOOL = event(
    "content_block_start",
    index=1,
    content_block={"type": "tool_use", "input": {"usage": {"output_tokens": 9999}}},
)
STOP_BLOCK = event("content_block_stop", index=0)
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
DELTA = event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 9})
LAST = event(
    "message_delta",
    delta={"stop_reason": "end_turn"},
    usage={"output_tokens": 15, "input_tokens": 40, "cache_read_input_tokens": None},
)
STOP = event("message_stop")
STREAM = PING + START + TEXT + b": a comment\n\n" + HELLO + TRAP + TOOL + STOP_BLOCK + DELTA
STREAM += PING + event("unheard_of", usage={"output_tokens": 9999}) + LAST + STOP
CACHED = {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 0}
BEGUN = Usage(25, 1, 11, 7, CACHED, service_tier="standard")
USED = Usage(40, 15, 11, 7, CACHED, service_tier="standard")


def fed(*pieces: bytes) -> StreamMeter:
    meter = StreamMeter()
    for piece in pieces:
        meter.feed(piece)
    return meter


def seen(meter: StreamMeter) -> tuple[Usage, bool, bool]:
    return meter.usage, meter.complete, bool(meter.error)


def test_a_stream_is_metered_cut_at_every_byte() -> None:
    for cut in range(len(STREAM) + 1):
        assert seen(fed(STREAM[:cut], STREAM[cut:])) == (USED, True, False), cut


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_stream_is_metered_in_small_pieces_and_with_any_line_end(size: int, end: bytes) -> None:
    stream = STREAM.replace(b"\n", end)

    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]

    assert seen(fed(*pieces)) == (USED, True, False)


def test_counts_of_a_stream_are_cumulative() -> None:
    meter = fed(START, DELTA, LAST)

    assert meter.usage.output_tokens == 15
    assert meter.usage.input_tokens == 40
    # Not said again is not zero.
    assert meter.usage.cache_read_input_tokens == 11


def test_what_was_seen_of_a_cut_stream_counts() -> None:
    meter = fed(START, DELTA, LAST[:-1])

    assert seen(meter) == (Usage(25, 9, 11, 7, CACHED, service_tier="standard"), False, False)


def test_what_a_model_writes_is_never_a_count() -> None:
    assert seen(fed(START, TRAP, TOOL)) == (BEGUN, False, False)


@pytest.mark.parametrize("start", [b"event: error\n", b"event:error\n"])
def test_an_error_in_the_stream_is_seen(start: bytes) -> None:
    error = b'data: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n'

    meter = fed(START, start, error)

    assert meter.error
    assert not meter.complete


@pytest.mark.parametrize(
    "usage",
    [
        "-5",
        "1.5",
        "1e400",
        "99999999999999999999999",
        "2147483648",
        "true",
        '"7"',
        "[7]",
        '{"x":1}',
    ],
)
def test_a_count_that_is_none_is_not_taken(usage: str) -> None:
    text = f'{{"type":"message_delta","usage":{{"output_tokens":{usage}}}}}'

    meter = fed(START, f"event: message_delta\ndata: {text}\n\n".encode(), STOP)

    assert seen(meter) == (BEGUN, True, False)
    assert read_whole(text.encode())[0] == Usage()


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"\xff","usage":{}}',
        b'{"usage":',
        b'"usage"',
        b"[" * 100_000 + b'"usage"',
        b'{"type":"message_start","message":"usage"}',
        b'{"type":"message_delta","usage":null}',
        b'{"type":"message_start","message":{"usage":null}}',
        b"\x00\x01\x02message_stop",
        b"",
    ],
)
def test_an_event_that_cannot_be_read_is_passed_over(data: bytes) -> None:
    meter = fed(START, b"event: x\ndata: " + data + b"\n\n", LAST, STOP)

    assert seen(meter) == (USED, True, False)
    read_whole(data)


@pytest.mark.parametrize("size", [16, 16_384])
@pytest.mark.parametrize("begin", [b"", b'data: {"usage":1,"', b"event: error\n"])
def test_junk_without_an_end_stays_bounded_and_quick(begin: bytes, size: int) -> None:
    meter, piece, began = fed(begin), b"x" * size, time.process_time()

    for _ in range(2000):
        meter.feed(piece)

    assert len(meter._tail) <= LONGEST_TAIL
    assert time.process_time() - began < 2
    meter.feed(b"\n\n" + START + STOP)
    assert seen(meter) == (BEGUN, True, False)


def test_a_huge_event_hides_nothing_behind_it() -> None:
    huge = event("content_block_start", content_block={"content": 'x"usage"' * 50_000})
    stream = START + huge + LAST + STOP

    pieces = [stream[at : at + 4096] for at in range(0, len(stream), 4096)]

    assert seen(fed(*pieces)) == (USED, True, False)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=50) | st.sampled_from([STREAM[:90], STOP, b"\r", b"\n"])))
def test_nothing_whatsoever_fails_a_stream(pieces: list[bytes]) -> None:
    fed(*pieces)
    read_whole(b"".join(pieces))


def test_a_whole_answer_is_metered() -> None:
    body = {"type": "message", "usage": {"input_tokens": 3, "output_tokens": 5}, "more": [1]}

    assert read_whole(json.dumps(body).encode())[0] == Usage(3, 5)
    assert read_whole(b'{"type":"message"}')[0] == Usage()
    assert read_whole(b"not json")[0] == Usage()


def test_events_are_split_at_their_ends() -> None:
    events, rest = sse.split(b"a: 1\n\nb: 2\r\n\r\n: c\r\rd: 4\n")

    assert events == [b"a: 1\n\n", b"b: 2\r\n\r\n", b": c\r\r"]
    assert rest == b"d: 4\n"


@pytest.mark.parametrize(
    ("event", "name", "data"),
    [
        (b"event: a\ndata: 1\n\n", b"a", b"1"),
        (b"event:a\r\ndata:1\r\ndata:  2\r\n\r\n", b"a", b"1\n 2"),
        (b"data: 1\n\n", b"", b"1"),
        (b": event: a\n\n", b"", b""),
        (b"event\ndata\n\n", b"", b""),
        (b"event: a\nevent: b\n\n", b"a", b""),
        (b"events: a\n\n", b"", b""),
    ],
)
def test_fields_of_an_event_are_read(event: bytes, name: bytes, data: bytes) -> None:
    assert sse.name_of(event) == name
    assert sse.data_of(event) == data
