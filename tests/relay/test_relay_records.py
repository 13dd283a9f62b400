"""Every relayed request leaves one record, and every account what was learnt of it."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from accounts import facts
from accounts.models import LimitWindow
from lib import streams
from lib.redis import for_requests
from relay.trail import Attempt, Trail
from sessions_limit import use
from sessions_limit.models import ClientKey
from tests.relay.conftest import Relay
from usage import recorder
from usage.models import RequestRecord


async def _drain(relay: Relay) -> int:
    await relay.running.idle()
    await recorder.appender.flushed()
    await facts.facts.flushed()
    await sync_to_async(facts.drain)()
    return await sync_to_async(recorder.drain)()


async def test_a_request_is_recorded_with_what_it_used(relay: Relay) -> None:
    await relay.link("ada")

    stream = await relay.ask(session="s", stream=True)
    whole = await relay.ask(session="s")
    written = await _drain(relay)

    assert written == 2
    for answer, record in zip(
        [whole, stream], [r async for r in RequestRecord.objects.all()], strict=True
    ):
        assert record.request_id == answer.headers["x-relay-request-id"]
        assert record.upstream_id == answer.headers["request-id"]
        assert (record.status, record.ended) == (200, "complete")
        assert record.model == "claude-opus-5-5"
        assert record.session == "s"
        assert record.account_id == relay.accounts["ada"].pk
        assert record.input_tokens is not None
        assert record.output_tokens
        assert record.output_tokens > 0
        assert record.started_at <= record.first_byte_at <= record.ended_at
    usage = whole.json()["usage"]
    record = await RequestRecord.objects.aget(stream=False)
    assert record.input_tokens == usage["input_tokens"]
    assert record.output_tokens == usage["output_tokens"]


async def test_refused_and_failed_requests_are_recorded_too(relay: Relay) -> None:
    await relay.ask()
    await relay.link("ada")
    relay.simulator.script(status=400)
    await relay.ask()

    await _drain(relay)

    records = [r async for r in RequestRecord.objects.order_by("started_at")]
    assert [(r.status, r.ended, r.attempts) for r in records] == [
        (503, "refused", 0),
        (400, "complete", 1),
    ]


async def test_what_is_refused_before_it_is_understood_is_recorded_for_its_key(
    relay: Relay,
) -> None:
    stranger = await relay.http.post("/v1/messages", json={}, headers={"x-api-key": "rk_no"})
    await relay.http.post("/v1/messages", content=b"{", headers=relay.auth)
    await relay.http.get("/v1/messages", headers=relay.auth)
    await relay.http.post("/v1/complete", json={}, headers=relay.auth)

    await _drain(relay)

    assert stranger.status_code == 401
    records = [r async for r in RequestRecord.objects.order_by("started_at")]
    assert [(r.endpoint, r.status, r.ended, r.model) for r in records] == [
        ("/v1/messages", 400, "refused", ""),
        ("/v1/messages", 405, "refused", ""),
        ("other", 404, "refused", ""),
    ]
    assert {record.key_id is not None for record in records} == {True}


async def test_a_row_delivered_twice_is_written_once(relay: Relay) -> None:
    await relay.link("ada")
    await relay.ask()
    rows: list[Any] = []

    await relay.running.idle()
    await recorder.appender.flushed()
    await sync_to_async(streams.drain)(recorder.STREAM, rows.extend)
    for _ in range(2):
        await sync_to_async(recorder.write)(rows)

    assert await RequestRecord.objects.acount() == 1


async def test_a_bad_row_does_not_hold_up_the_others(relay: Relay) -> None:
    await relay.link("ada")
    recorder.append({"nonsense": 1})
    await relay.ask()

    await _drain(relay)

    assert await RequestRecord.objects.acount() == 1
    assert await for_requests().xlen(f"{recorder.STREAM}:dead") == 1
    assert await for_requests().xlen(recorder.STREAM) == 0


async def test_a_record_outlives_its_account_and_its_key(relay: Relay) -> None:
    await relay.link("ada")
    await relay.ask()
    await ClientKey.objects.all().adelete()
    await sync_to_async(relay.accounts["ada"].delete)()

    await _drain(relay)

    record = await RequestRecord.objects.aget()
    assert (record.account_id, record.key_id) == (None, None)


async def test_use_and_windows_are_noted(relay: Relay) -> None:
    await relay.link("ada")
    before = timezone.now()
    await relay.ask()

    await _drain(relay)
    await sync_to_async(use.note_last_use)()

    account = await relay.account("ada")
    assert account.last_used_at >= before
    windows = {w.name: w async for w in LimitWindow.objects.filter(account=account)}
    assert {"5h", "7d"} <= set(windows)
    assert 0 <= windows["5h"].utilization <= 1.1
    assert (await ClientKey.objects.aget()).last_used_at >= before


async def test_prompts_and_answers_are_nowhere_in_what_is_kept_or_logged(
    relay: Relay, caplog: Any
) -> None:
    caplog.set_level("DEBUG")
    await relay.link("ada")

    answer = await relay.ask("reply: my-own-secret-words", session="s")
    await _drain(relay)

    assert "my-own-secret-words" in answer.text
    kept = [str(vars(record)) async for record in RequestRecord.objects.all()]
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "my-own-secret-words" not in "".join(kept) + logged
    assert relay.key not in logged
    assert "sk-ant-" not in logged


@pytest.mark.parametrize(
    ("rows", "may_be"),
    [
        (("D37",), False),
        (("D05",), False),
        (("D05", "D37"), True),
        (("quota", "D05", "D04", "D37"), True),
        # Whoever was passed over has got nothing.
        (("D05", "quota"), False),
        (("D05", "D03"), False),
    ],
)
def test_only_what_was_sent_twice_may_be_billed_twice(rows: tuple[str, ...], may_be: bool) -> None:
    trail = Trail(attempts=[Attempt(number, row) for number, row in enumerate(rows)])

    assert trail.may_be_billed_twice is may_be


async def test_counting_tokens_is_no_stream_whatever_the_body_says(relay: Relay) -> None:
    await relay.link("ada")
    body = {
        "model": "claude-opus-5-5",
        "stream": True,
        "messages": [{"role": "user", "content": "x"}],
    }

    answer = await relay.http.post("/v1/messages/count_tokens", json=body, headers=relay.auth)
    await _drain(relay)

    assert answer.status_code == 200
    record = await RequestRecord.objects.aget()
    assert (record.stream, record.verdict, record.ended) == (False, "D37", "complete")
