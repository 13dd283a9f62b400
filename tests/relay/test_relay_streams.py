"""Streams pass as they are; what breaks off never looks as if it had ended."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest

from lib.redis import for_requests
from relay import asgi, breaker, deliver
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient
from usage import recorder


def _body(text: str = "hello") -> bytes:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "claude-opus-5-5", "messages": messages, "stream": True}).encode()


async def _stream(relay: Relay, text: str = "hello") -> RawClient:
    return await RawClient.post(
        relay.url, "/v1/messages?beta=true", CLAUDE_CODE | relay.auth, _body(text)
    )


async def _upstream_ended(relay: Relay) -> dict[str, Any]:
    for _ in range(100):
        last = relay.simulator.requests(path="/v1/messages")[-1]
        if last["ended"]:
            return last
        await asyncio.sleep(0.01)
    raise AssertionError("the upstream's request never ended")


async def _rows() -> list[dict[str, Any]]:
    """Return the records that wait to be written, once there are any."""
    rows: list[Any] = []
    for _ in range(100):
        rows = await for_requests().xrange(recorder.STREAM)
        if rows:
            break
        await asyncio.sleep(0.01)
    return [json.loads(fields["d"]) for _, fields in rows]


def _text(stream: str) -> str:
    """Return the text that a stream's deltas make."""
    return "".join(re.findall(r'"text_delta","text":"([^"]*)"', stream))


@pytest.mark.parametrize(
    "script",
    [
        {},
        {"piece": 1},
        {"piece": 7, "crlf": True},
        {"crlf": True},
        {"events": 200, "piece": 1000},
    ],
)
async def test_a_stream_arrives_byte_for_byte(relay: Relay, script: dict[str, Any]) -> None:
    await relay.link("ada")
    relay.simulator.script(times=None, **script)
    headers = CLAUDE_CODE | {"authorization": "", "anthropic-version": "2023-06-01"}
    token = relay.simulator.setup_token("ada@example.com")
    headers |= {"authorization": f"Bearer {token}", "anthropic-beta": "oauth-2025-04-20"}

    through = await (await _stream(relay)).all()
    direct = await (
        await RawClient.post(relay.simulator.url, "/v1/messages", headers, _body())
    ).all()

    assert through.ended_well
    assert _without_ids(through.body) == _without_ids(direct.body)


def _without_ids(body: bytes) -> bytes:
    """Two answers differ in their message ids only."""
    return re.sub(rb"msg_[A-Za-z0-9]+", b"msg_", body)


async def test_events_arrive_one_by_one_as_they_are_made(relay: Relay) -> None:
    await relay.link("ada")
    relay.simulator.script(events=5, pace=0.1)

    client = await _stream(relay)
    await client.head()
    times = []
    while await client.chunk():
        times.append(time.monotonic())

    assert len(times) >= 5
    assert times[-1] - times[0] > 0.3


@pytest.mark.parametrize("how", [{"cut_after": 900}, {"cut_after": 900, "reset": True}])
async def test_d28_a_cut_upstream_never_looks_like_a_clean_end(
    relay: Relay, how: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    await relay.link("ada", "grace")
    relay.simulator.script(events=50, **how)

    seen = await (await _stream(relay)).all()

    assert "200 OK" in seen.head
    assert not seen.ended_well
    assert b"message_start" in seen.body
    assert b"message_stop" not in seen.body
    assert len(relay.served()) == 1
    assert [row["ended"] for row in await _rows()] == ["upstream_cut"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_soft_cut_still_gives_every_byte_that_came(relay: Relay) -> None:
    await relay.link("ada")
    relay.simulator.script(events=50, cut_after=1500)

    seen = await (await _stream(relay)).all()

    assert len(seen.body) == 1500


async def test_a_stream_that_ends_without_its_last_event_counts_as_cut(relay: Relay) -> None:
    await relay.link("ada")
    relay.simulator.script(omit_stop=True)

    seen = await (await _stream(relay)).all()

    assert not seen.ended_well


async def test_a_stream_cut_before_its_first_event_comes_from_another_account(relay: Relay) -> None:
    await relay.link("ada", "grace")
    relay.simulator.script(cut_after=20)

    seen = await (await _stream(relay)).all()

    assert seen.ended_well
    assert b"message_stop" in seen.body
    assert len(relay.served()) == 2


async def test_d29_an_error_within_the_stream_is_passed_on_and_never_tried_again(
    relay: Relay,
) -> None:
    await relay.link("ada", "grace")
    error = {"type": "overloaded_error", "message": "Overloaded"}
    relay.simulator.script(error_event=error, after_events=3)

    seen = await (await _stream(relay)).all()

    assert seen.ended_well
    assert seen.body.count(b"event: error") == 1
    assert len(relay.served()) == 1
    assert [row["ended"] for row in await _rows()] == ["error_in_stream"]


@pytest.mark.parametrize("when", ["before the head", "within the stream"])
async def test_d32_a_client_that_hangs_up_ends_the_upstreams_work(relay: Relay, when: str) -> None:
    await relay.link("ada")
    early = when == "before the head"
    relay.simulator.script(**({"delay": 5} if early else {"events": 500, "pace": 0.05}))

    client = await _stream(relay)
    if early:
        await asyncio.sleep(0.2)
    else:
        await client.head()
        await client.chunk()
    gone_at = time.time()
    client.hang_up()
    ended = await _upstream_ended(relay)

    assert ended["ended"] == "client_gone"
    assert ended["ended_at"] - gone_at < 0.25
    rows = await _rows()
    assert [(row["ended"], row["status"]) for row in rows] == [
        ("client_gone", 499 if early else 200)
    ]


async def test_d30_a_silent_upstream_is_given_up(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "UPSTREAM_SILENT", 0.2)
    monkeypatch.setattr(asgi, "WATCH_SECONDS", 0.1)
    (ada,) = await relay.link("ada")
    relay.simulator.script(events=50, stall_after=900)

    seen = await (await _stream(relay)).all()

    assert not seen.ended_well
    assert (await _upstream_ended(relay))["ended"] == "client_gone"
    assert [row["ended"] for row in await _rows()] == ["timeout"]
    assert len(breaker.accounts._record(ada.pk).failures) == 1


async def test_d33_a_stream_without_an_end_is_ended(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "LONGEST_STREAM", 0.5)
    monkeypatch.setattr(asgi, "WATCH_SECONDS", 0.1)
    await relay.link("ada")
    relay.simulator.script(events=200, pace=0.05)

    seen = await (await _stream(relay)).all()

    assert not seen.ended_well
    assert (await _upstream_ended(relay))["ended"] == "client_gone"
    assert [row["ended"] for row in await _rows()] == ["timeout"]


async def test_a_compressed_answer_passes_as_it_is(relay: Relay) -> None:
    await relay.link("ada")
    relay.simulator.script(gzip=True)

    answer = await relay.ask("reply: squeezed", stream=True)

    assert answer.headers["content-encoding"] == "gzip"
    assert _text(answer.text) == "squeezed"


async def test_an_answer_that_is_not_a_stream_keeps_its_bytes_and_its_length(relay: Relay) -> None:
    await relay.link("ada")
    text = '{"type":"message",  "model":"x", "usage":{"input_tokens":1,"output_tokens":2}}'
    relay.simulator.script(text=text, status=200, headers={"content-type": "application/json"})

    answer = await relay.ask()

    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
