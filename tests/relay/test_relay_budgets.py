"""What a key may spend and how fast, as its holder meets it: served, or told when to come back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time, timedelta
from typing import Any

import httpx2
from asgiref.sync import sync_to_async

from sessions_limit import keys, rates
from sessions_limit.models import ClientKey
from sessions_limit.standing import standing
from tests.relay.conftest import Relay
from usage import recorder
from usage.models import RequestRecord

PROMPT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


async def terms(**given: Any) -> None:
    """Change what the key may, and let the relay know at once."""
    await ClientKey.objects.aupdate(**given)
    keys.reset()


def tokens(answer: httpx2.Response) -> int:
    used = answer.json()["usage"]
    return sum(used.get(name) or 0 for name in (*PROMPT, "output_tokens"))


def until_midnight() -> float:
    now = datetime.now(UTC)
    tomorrow = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
    return (tomorrow - now).total_seconds()


async def test_a_budget_is_used_by_answers_also_while_they_run_and_then_refuses(
    relay: Relay,
) -> None:
    await relay.link("ada")
    first = await relay.ask()
    used = tokens(first)
    await terms(tokens_per_day=used + 1)

    # One token is left: the next answer may take as many as it likes, and tells of its prompt.
    relay.simulator.script({"path": "/v1/messages"}, events=200, pace=0.03)
    running = asyncio.create_task(relay.ask(stream=True))
    async with asyncio.timeout(5):
        while len(relay.served()) < 2:
            await asyncio.sleep(0.01)
        while (refused := await relay.ask()).status_code == 200:
            await asyncio.sleep(0.05)
    was_running = not running.done()
    running.cancel()
    await relay.running.idle()
    again = await relay.ask()

    assert was_running
    assert first.status_code == 200
    for answer in (refused, again):
        assert answer.status_code == 429
        assert answer.json()["error"]["type"] == "billing_error"
        assert answer.json()["error"]["message"].startswith(
            f"The budget of {used + 1:,} tokens a day of this key is used up. It is renewed on "
        )
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["x-relay-error"] == "budget"
        assert -5 < int(answer.headers["retry-after"]) - until_midnight() < 5
    assert (await relay.http.get("/v1/models", headers=relay.auth)).status_code == 200


async def test_a_budget_is_exact_to_the_token_and_agrees_with_the_records(relay: Relay) -> None:
    await relay.link("ada")
    await terms(cost_per_month=10**12, tokens_per_month=10**12)

    answers = await asyncio.gather(*(relay.ask(session=f"s{number}") for number in range(8)))
    await relay.running.idle()
    await recorder.appender.flushed()
    used = sum(map(tokens, answers))
    waiting = await _used()
    await terms(tokens_per_month=used)
    refused = await relay.ask()
    await terms(tokens_per_month=used + 1)
    served = await relay.ask()

    await relay.running.idle()
    await recorder.appender.flushed()
    await sync_to_async(recorder.drain)()
    records = [record async for record in RequestRecord.objects.filter(status=200)]
    assert (refused.status_code, served.status_code) == (429, 200)
    assert waiting["tokens"] == used
    assert await _used() == {
        "tokens": used + tokens(served),
        "cost": sum(record.cost or 0 for record in records),
    }
    assert waiting["cost"] > 0


async def test_a_rate_lets_in_so_many_a_minute_and_says_when_the_next_may_come(
    relay: Relay,
) -> None:
    await relay.link("ada")
    await terms(requests_per_minute=2, tokens_per_minute=10**6)

    answers = [await relay.ask() for _ in range(3)]
    await rates.settled()
    await terms(requests_per_minute=None, tokens_per_minute=sum(map(tokens, answers[:2])) // 2)
    answers.append(await relay.ask())

    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    for answer, words in zip(answers[2:], ("2 requests", "tokens"), strict=True):
        told = answer.json()["error"]
        assert told["type"] == "rate_limit_error"
        assert f"{words} a minute; the next request is possible in " in told["message"]
        assert answer.headers["x-should-retry"] == "false"
        assert 1 <= int(answer.headers["retry-after"]) <= 121
    assert len(relay.served()) == 2


@sync_to_async
def _used() -> dict[str, int]:
    return {one.unit: one.used for one in standing(ClientKey.objects.get())}
