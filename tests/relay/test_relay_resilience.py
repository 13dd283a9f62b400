"""Retries cost, failing accounts rest, poison stays in its cup, and the trail tells it all."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from accounts import pool
from accounts.models import Account
from relay import breaker, drain, failover
from relay.bench import bench
from relay.budget import budget
from relay.ramp import ramp
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient
from tests.relay.things import ASK
from usage import recorder
from usage.models import RequestRecord

OTHER_CLIENT = {"user-agent": "Anthropic/Python 2.10.0"}


async def _records(relay: Relay) -> list[RequestRecord]:
    await relay.running.idle()
    await recorder.appender.flushed()
    await sync_to_async(recorder.drain)()
    return [record async for record in RequestRecord.objects.order_by("started_at")]


async def test_the_trail_says_who_was_asked_and_who_was_not_and_why(relay: Relay) -> None:
    ada, grace, linus = await relay.link("ada", "grace", "linus")
    await Account.objects.filter(pk=linus.pk).aupdate(status="inactive")
    first = {"account": "ada@example.com"}
    relay.simulator.script({"account": "grace@example.com"}, status=500)
    relay.simulator.script(first, status=500)

    answer = await relay.ask(session="s")
    record = (await _records(relay))[0]

    assert record.trail["candidates"] == [ada.pk, grace.pk]
    assert record.trail["skipped"] == {str(linus.pk): "inactive"}
    assert [a["row"] for a in record.trail["attempts"]] == ["D21", "D21"]
    assert {a["account"] for a in record.trail["attempts"]} == {ada.pk, grace.pk}
    assert record.trail["attempts"][1]["waited"] <= 0.5
    assert answer.status_code == 500


async def test_the_trail_is_shown_to_clients_only_on_demand(relay: Relay, settings: Any) -> None:
    (ada,) = await relay.link("ada")

    hidden = await relay.ask()
    settings.CONFIG = settings.CONFIG.model_copy(update={"relay_debug_headers": True})
    shown = await relay.ask()

    assert "x-relay-account" not in hidden.headers
    assert ada.name == "ada"
    assert shown.headers["x-relay-account"] == "ada"
    assert shown.headers["x-relay-attempts"] == "ada D37"


async def test_an_attempt_lost_without_an_answer_is_marked_as_perhaps_billed_twice(
    relay: Relay,
) -> None:
    await relay.link("ada", "grace")
    relay.simulator.script(reset=True)

    await relay.ask()
    await relay.ask()

    assert [r.possible_double_spend for r in await _records(relay)] == [True, False]


async def test_d34_an_empty_budget_ends_host_retries_but_not_those_of_accounts(
    relay: Relay,
) -> None:
    await relay.link("ada", "grace", "linus")
    await relay.ask(session="s")
    served = relay.served()[0]
    relay.simulator.clear_requests()
    while budget.spend():
        pass

    relay.simulator.script({"account": f"{served}@example.com"}, status=500)
    unpaid = await relay.ask(session="s")
    window = {"5h": {"status": "rejected", "utilization": 1.0, "reset": time.time() + 900}}
    relay.simulator.limit(f"{served}@example.com", window)
    free = await relay.ask(session="s")

    assert (unpaid.status_code, free.status_code) == (500, 200)
    assert relay.served()[0] == served
    assert len(relay.served()) == 3


async def test_a_client_that_retries_by_itself_gets_none_on_top(relay: Relay) -> None:
    await relay.link("ada", "grace")
    relay.simulator.script(times=None, status=500)

    answer = await relay.ask(headers=OTHER_CLIENT | {"x-stainless-retry-count": "2"})

    assert answer.status_code == 500
    assert len(relay.served()) == 1


async def test_d33_d35_nothing_is_retried_at_the_end_of_the_time_or_while_draining(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await relay.link("ada", "grace")
    relay.simulator.script(times=None, status=500)

    monkeypatch.setattr(failover, "LAST_SECONDS", 10_000.0)
    await relay.ask()
    monkeypatch.setattr(failover, "LAST_SECONDS", 30.0)
    assert len(relay.served()) == 1
    relay.simulator.clear_scripts()
    relay.simulator.script(times=None, delay=0.3, status=500)
    relay.simulator.clear_requests()
    asking = asyncio.create_task(relay.ask())
    while not relay.served():
        await asyncio.sleep(0.01)
    drain.begin()

    assert (await asking).status_code == 500
    assert len(relay.served()) == 1


async def test_an_account_that_keeps_breaking_off_rests_and_returns_gently(relay: Relay) -> None:
    await relay.link("ada", "grace")
    for name in ("s", "t"):
        await relay.ask(session=name)
    ada = relay.accounts["ada"].pk
    bound = "s" if relay.served()[0] == "ada" else "t"
    match = {"account": "ada@example.com"}
    relay.simulator.script(match, times=None, events=50, cut_after=900)

    for _ in range(5):
        with pytest.raises(Exception, match=r".*"):
            await relay.ask(session=bound, stream=True)
    relay.simulator.clear_scripts()
    relay.simulator.clear_requests()
    after = await relay.ask(session=bound)

    assert after.status_code == 200
    assert relay.served() == ["grace"]
    held = bench.held_until(ada, "claude-opus-5-5", timezone.now())
    assert held is not None
    assert timedelta(seconds=20) < held - timezone.now() < timedelta(seconds=40)
    ramp.take(ada)
    assert not ramp.admits(ada)
    assert (await relay.account("ada")).status == "active"


async def test_an_upstream_that_cannot_be_reached_is_asked_once_a_second(
    relay: Relay, settings: Any
) -> None:
    await relay.link("ada")
    there = settings.CONFIG
    settings.CONFIG = there.model_copy(update={"upstream_base_url": "http://127.0.0.1:9"})

    codes = [(await relay.ask()).headers["x-relay-error"] for _ in range(14)]

    assert codes[:4] == ["upstream_connect"] * 4
    assert codes.count("upstream_unavailable") >= 5
    assert (await relay.account("ada")).status == "active"
    settings.CONFIG = there
    await asyncio.sleep(1.1)
    assert (await relay.ask()).status_code == 200
    assert (await relay.ask()).status_code == 200


async def test_a_poisoned_request_never_cools_the_pool(relay: Relay) -> None:
    await relay.link("ada", "grace")
    error = {"type": "rate_limit_error", "message": "Usage credits are required for fast mode."}
    body = {"type": "error", "error": error}
    relay.simulator.script({"header": {"x-app": "bad"}}, times=None, status=429, body=body)

    poisoned = [await relay.ask(headers={"x-app": "bad"}) for _ in range(8)]
    healthy = [await relay.ask(session=f"s{i}") for i in range(4)]

    assert {answer.status_code for answer in poisoned} == {429}
    assert {answer.status_code for answer in healthy} == {200}
    assert len(set(relay.served()[-4:])) == 2


async def test_an_account_that_may_not_use_a_model_comes_last_for_it(relay: Relay) -> None:
    await relay.link("ada", "grace")
    for session in ("s", "t"):
        await relay.ask(session=session)
    served = relay.served()
    error = {"type": "permission_error", "message": "Your plan has no access to this model."}
    body = {"type": "error", "error": error, "request_id": "req_1"}
    match = {"account": f"{served[0]}@example.com", "model": "claude-opus-5-5"}
    relay.simulator.script(match, times=None, status=403, body=body)
    relay.simulator.clear_requests()

    moved = await relay.ask(session="s")
    fresh = [await relay.ask(session=f"n{i}") for i in range(3)]
    other = [await relay.ask(session=f"h{i}", model="claude-haiku-5-5") for i in range(2)]

    assert {a.status_code for a in (moved, *fresh, *other)} == {200}
    assert relay.served()[:5] == [served[0], served[1], served[1], served[1], served[1]]
    assert set(relay.served()[5:]) == set(served)
    assert (await relay.account(served[0])).status == "active"


async def test_a_model_that_nobody_may_use_is_the_clients_answer(relay: Relay) -> None:
    await relay.link("ada", "grace")
    error = {"type": "permission_error", "message": "Your plan has no access to this model."}
    body = {"type": "error", "error": error, "request_id": "req_1"}
    relay.simulator.script(times=None, status=403, body=body)

    answers = [await relay.ask() for _ in range(4)]

    assert {answer.status_code for answer in answers} == {403}
    assert [answer.json() for answer in answers] == [body] * 4
    assert len(relay.served()) == 4


async def test_a_rate_limit_within_a_stream_puts_the_account_last(relay: Relay) -> None:
    (ada, _) = await relay.link("ada", "grace")
    error = {"type": "rate_limit_error", "message": "Error"}
    match = {"account": "ada@example.com"}
    relay.simulator.script(match, error_event=error, after_events=3)

    for session in ("a", "b"):
        await relay.ask(session=session, stream=True)
    await relay.running.idle()

    assert bench.is_penalised(ada.pk, timezone.now())
    assert (await relay.account("ada")).status == "active"


async def test_a_key_whose_requests_harm_accounts_is_paused(relay: Relay) -> None:
    await relay.link("ada")
    key = (await _key_of(relay)).pk
    for _ in range(5):
        breaker.keys.touched(key)

    answer = await relay.ask()

    assert answer.status_code == 429
    assert answer.headers["x-relay-error"] == "key_limit"
    assert answer.headers["x-should-retry"] == "false"
    assert 55 <= int(answer.headers["retry-after"]) <= 60
    assert relay.served() == []


async def _key_of(relay: Relay) -> Any:
    from sessions_limit.models import ClientKey

    return await ClientKey.objects.aget(name="test")


async def test_an_account_back_from_its_limit_gets_one_request_at_first(relay: Relay) -> None:
    await relay.link("ada", "grace")
    window = {"5h": {"status": "rejected", "utilization": 1.0, "reset": time.time() + 2}}
    relay.simulator.limit("ada@example.com", window)
    for session in ("a", "b"):
        await relay.ask(session=session)
    await asyncio.sleep(2.1)
    await Account.objects.aupdate(limited_until=timezone.now())
    bench.reset()
    relay.simulator.clear_requests()
    relay.simulator.script(times=None, events=5, pace=0.05)

    await asyncio.gather(*(relay.ask(session=f"n{i}", stream=True) for i in range(8)))

    assert relay.served().count("ada") <= 2
    assert relay.served().count("grace") >= 6


async def test_hostile_targets_and_heads_are_refused_before_anything_else(relay: Relay) -> None:
    await relay.link("ada")
    relay.simulator.clear_requests()
    body = json.dumps({"model": "claude-opus-5-5", "messages": []})
    answers = [
        await relay.http.post(relay.url + path, content=body, headers=relay.auth)
        for path in ("//v1/messages", "/v1/messages;a", "/v1/%6dessages", "/x/..%2f/v1/messages")
    ]
    host = await relay.http.post("/v1/messages", content=body, headers=relay.auth | {"host": "x"})
    underscore = await relay.http.post(
        "/v1/messages", content=body, headers=relay.auth | {"x_api_key": "a"}
    )

    assert [answer.status_code for answer in answers] == [400] * 4
    assert {answer.headers["x-relay-error"] for answer in answers} == {"bad_path"}
    assert (host.status_code, underscore.status_code) == (400, 400)
    assert relay.simulator.requests() == []


async def test_a_success_counts_also_when_the_pool_must_be_read_anew(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_slowly() -> pool.Pool:
        time.sleep(0.3)
        return pool.load()

    (ada,) = await relay.link("ada")
    relay.simulator.script(events=10, pace=0.05)
    body = json.dumps(ASK | {"stream": True}).encode()
    client = await RawClient.post(relay.url, "/v1/messages", CLAUDE_CODE | relay.auth, body)
    await client.head()
    monkeypatch.setattr(pool.snapshot, "_load", load_slowly)
    pool.snapshot.invalidate()

    seen = await _rest_of(client)
    await relay.running.idle()

    assert seen
    assert bench.serves(ada.pk, str(ASK["model"]))


async def _rest_of(client: RawClient) -> bytes:
    body = b""
    while piece := await client.chunk():
        body += piece
    return body
