"""Scripts: which requests they hit, and every fault they can make."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from tests.simulator.wire import Api, events_of, text_of
from tests.support.simulator import Simulator

ADA = "ada@example.com"


@contextmanager
def streaming(api: Api, **headers: str) -> Iterator[httpx2.Response]:
    body = {"model": "claude-x", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with api.client.stream(
        "POST", "/v1/messages", json=body, headers=api.headers(**headers)
    ) as answer:
        yield answer


def read_until_broken(answer: httpx2.Response) -> bytes:
    got = b""
    try:
        for chunk in answer.iter_raw():
            got += chunk
    except httpx2.TransportError:
        return got
    raise AssertionError("the stream was not broken")


def test_a_script_hits_as_often_as_it_says_after_letting_some_pass(
    simulator: Simulator, api: Api
) -> None:
    simulator.script({"path": "/v1/messages"}, skip=1, times=2, status=529)

    assert [api.ask().status_code for _ in range(4)] == [200, 529, 529, 200]
    assert simulator.scripts()[0]["hits"] == 2


def test_the_first_live_script_wins_and_the_next_takes_over(simulator: Simulator, api: Api) -> None:
    simulator.script({}, status=500)
    simulator.script({}, times=None, status=503)

    assert [api.ask().status_code for _ in range(3)] == [500, 503, 503]

    simulator.clear_scripts()
    assert api.ask().status_code == 200


@pytest.mark.parametrize(
    "match",
    [
        {"account": "grace@example.com"},
        {"path": "/v1/models"},
        {"method": "GET"},
        {"model": "claude-other"},
        {"header": {"x-app": "cli"}},
    ],
)
def test_a_script_for_something_else_does_not_hit(
    simulator: Simulator, api: Api, match: dict[str, Any]
) -> None:
    simulator.script(match, status=500)

    assert api.ask().status_code == 200


def test_a_script_that_matches_everything_said_hits(simulator: Simulator, api: Api) -> None:
    match = {"account": ADA, "path": "/v1/messages", "method": "POST", "model": "claude-opus-5-5"}
    simulator.script({**match, "header": {"Anthropic-Version": "2023-06-01"}}, status=500)

    assert api.ask().status_code == 500


def test_an_error_status_gets_the_usual_body_without_rate_limit_headers(
    simulator: Simulator, api: Api
) -> None:
    simulator.script({}, status=429, headers={"x-should-retry": "true", "cf-ray": None})

    answer = api.ask()

    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert answer.headers["x-should-retry"] == "true"
    assert "cf-ray" not in answer.headers
    assert not [name for name in answer.headers if "ratelimit" in name]


def test_a_body_is_sent_as_given(simulator: Simulator, api: Api) -> None:
    simulator.script({}, status=403, body={"error": {"type": "forbidden"}})
    simulator.script({}, status=502, text="<html>Bad gateway</html>")

    assert api.ask().json() == {"error": {"type": "forbidden"}}
    page = api.ask()
    assert page.headers["content-type"].startswith("text/html")
    assert page.text == "<html>Bad gateway</html>"


def test_delays_come_before_the_head_and_before_the_first_byte(
    simulator: Simulator, api: Api
) -> None:
    simulator.script({}, delay=0.15, first_byte_delay=0.15)
    began = time.monotonic()

    with streaming(api) as answer:
        head = time.monotonic() - began
        next(answer.iter_raw())
        first = time.monotonic() - began

    assert head > 0.14
    assert first - head > 0.14


@pytest.mark.parametrize(
    ("how", "error"), [(True, httpx2.ReadError), ("fin", httpx2.RemoteProtocolError)]
)
def test_the_connection_can_end_before_any_head(
    simulator: Simulator, api: Api, how: bool | str, error: type[Exception]
) -> None:
    simulator.script({}, reset=how)

    with pytest.raises(error):
        api.ask()

    assert simulator.requests("/v1/messages")[0]["ended"] == "cut"
    assert simulator.requests("/v1/messages")[0]["status"] is None


@pytest.mark.parametrize("cut", [0, 10, 700])
def test_a_stream_can_be_cut_after_some_bytes(simulator: Simulator, api: Api, cut: int) -> None:
    simulator.script({}, cut_after=cut)

    with streaming(api) as answer:
        got = read_until_broken(answer)

    assert len(got) == cut
    entry = simulator.requests("/v1/messages")[0]
    assert (entry["ended"], entry["sent_bytes"]) == ("cut", cut)


def test_a_plain_body_can_be_cut_too(simulator: Simulator, api: Api) -> None:
    simulator.script({}, cut_after=5)

    with pytest.raises(httpx2.RemoteProtocolError):
        api.ask()


def test_a_stall_can_end(simulator: Simulator, api: Api) -> None:
    simulator.script({}, stall_after=20, stall_seconds=0.2)
    began = time.monotonic()

    answer = api.ask(stream=True)

    assert events_of(answer)[-1]["type"] == "message_stop"
    assert time.monotonic() - began > 0.19


@pytest.mark.parametrize("after", [0, 3])
def test_a_stream_can_turn_into_an_error(simulator: Simulator, api: Api, after: int) -> None:
    error = {"type": "overloaded_error", "message": "Overloaded"}
    simulator.script({}, error_event=error, after_events=after)

    events = events_of(api.ask(stream=True))

    assert len(events) == after + 1
    assert events[-1] == {"type": "error", "error": error}


def test_a_stream_can_end_without_its_stop(simulator: Simulator, api: Api) -> None:
    simulator.script({}, omit_stop=True)

    assert events_of(api.ask(stream=True))[-1]["type"] == "message_delta"


def test_the_shape_of_a_stream_does_not_change_its_meaning(simulator: Simulator, api: Api) -> None:
    simulator.script({}, text="some text", piece=1, gzip=True)
    simulator.script({}, text="some text", crlf=True)

    zipped = api.ask(stream=True)
    carriage = api.ask(stream=True)

    assert zipped.headers["content-encoding"] == "gzip"
    assert text_of(zipped) == "some text"
    assert carriage.text.count("\r\n\r\n") == carriage.text.count("event: ")
    assert carriage.text.count("\n") == carriage.text.count("\r\n")


def test_a_stream_can_be_long_and_slow(simulator: Simulator, api: Api) -> None:
    simulator.script({}, events=40, pace=0.005)
    began = time.monotonic()

    answer = api.ask(stream=True)

    kinds = [event["type"] for event in events_of(answer)]
    assert kinds.count("content_block_delta") == 40
    assert time.monotonic() - began > 0.2


def test_a_mistyped_script_is_refused_by_name(simulator: Simulator) -> None:
    with pytest.raises(RuntimeError, match="unknown action key: statsu"):
        simulator.script({}, statsu=500)
    with pytest.raises(RuntimeError, match="unknown match key: pathh"):
        simulator.script({"pathh": "/"}, status=500)
