"""What a relay does is told at /metrics, by any process for all."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from prometheus_client.parser import text_string_to_metric_families

from lib import counters
from tests.relay.conftest import Relay
from usage import known_models, recorder


async def _scrape(relay: Relay) -> dict[tuple[str, ...], float]:
    answer = await relay.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name.removeprefix("carousel_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_requests_are_told_with_their_tokens_refusals_and_fail_overs(relay: Relay) -> None:
    counters.deltas.reset()
    known_models.reset()
    refused = await relay.http.post("/v1/messages", headers={"x-api-key": "wrong"})
    await relay.ask()
    await relay.link("ada", "ben")
    relay.simulator.script(status=529)

    answer = await relay.ask()
    relay.simulator.script(events=400, pace=0.05)
    async with relay.http.stream("POST", "/v1/messages", json=_long(), headers=relay.auth):
        before = await _scrape(relay)
    await relay.running.idle()
    await recorder.appender.flushed()
    await sync_to_async(recorder.drain)()
    after = await _scrape(relay)

    assert refused.status_code == 401
    assert answer.status_code == 200
    assert before["requests_in_flight",] == before["streams_open",] == 1
    assert after["requests_in_flight",] == after["streams_open",] == 0
    assert before["refusals_total", "client_auth"] == before["refusals_total", "pool_unavailable"]
    assert before["processes", "web"] == 1
    assert before["accounts", "oauth", "active"] == 2
    assert not [key for key in before if key[0] == "requests_total"]
    assert after["stream_rows", "requests"] == 0
    model = "claude-opus-5-5"
    assert after["requests_total", "complete", model, "oauth", "2xx"] == 1
    assert after["requests_total", "refused", model, "none", "5xx"] == 1
    output = answer.json()["usage"]["output_tokens"]
    assert after["tokens_total", "output", model, "oauth"] >= output
    assert after["attempts_total", "D37"] >= 1
    assert after["retries_total",] + after["failovers_total",] == 1


def _long() -> dict[str, object]:
    return {
        "model": "claude-opus-5-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
    }
