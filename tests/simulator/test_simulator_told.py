"""The simulator's own books: what each answer told of usage, and how much of it must have come."""

from __future__ import annotations

from typing import Any

from tests.simulator.wire import Api, events_of
from tests.support.simulator import Simulator

ASK = 'usage: {"input_tokens": 7, "output_tokens": 90, "speed": "fast", "iterations": [{}, {}]}'


def _told(simulator: Simulator) -> list[tuple[int, dict[str, Any]]]:
    (entry,) = simulator.requests(path="/v1/messages")
    assert entry["request_id"].startswith("req_")
    return [(told["at"], told["usage"]) for told in entry["told"]]


def test_a_stream_tells_at_its_start_and_once_more_at_its_end(
    api: Api, simulator: Simulator
) -> None:
    answer = api.ask(ASK, stream=True)

    (first, start), (last, end) = _told(simulator)
    body = answer.content
    assert body[:first].count(b"event: message_start") == 1
    assert body[:first].endswith(b"\n\n")
    assert body[last:].startswith(b"event: message_stop")
    assert (start["input_tokens"], start["output_tokens"], start["speed"]) == (7, 1, "fast")
    assert "iterations" not in start
    assert (end["output_tokens"], len(end["iterations"]), end["speed"]) == (90, 2, "fast")
    assert events_of(answer)[-2]["usage"]["iterations"] == [{}, {}]


def test_a_whole_answer_tells_all_with_its_last_byte(api: Api, simulator: Simulator) -> None:
    answer = api.ask(ASK)

    assert _told(simulator) == [(len(answer.content), answer.json()["usage"])]
    assert answer.json()["usage"]["output_tokens"] == 90


def test_a_refusal_and_an_answer_that_a_script_replaces_tell_nothing(
    api: Api, simulator: Simulator
) -> None:
    simulator.script(status=500, process=True)

    api.ask()

    assert _told(simulator) == []


def test_a_stream_that_breaks_off_has_told_what_was_sent(api: Api, simulator: Simulator) -> None:
    simulator.script(error_event={"type": "api_error", "message": "no"}, after_events=3)

    api.ask(stream=True)

    assert len(_told(simulator)) == 1
