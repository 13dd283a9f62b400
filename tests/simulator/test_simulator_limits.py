"""Rate-limit windows: their headers and their refusals."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from tests.simulator.wire import Api
from tests.support.simulator import Simulator

ADA = "ada@example.com"
UNIFIED = "anthropic-ratelimit-unified-"


def test_an_answer_tells_both_windows_as_fractions(simulator: Simulator, api: Api) -> None:
    reset = int(time.time()) + 600
    simulator.limit(ADA, {"5h": {"utilization": 0.86, "reset": reset}})

    headers = api.ask().headers

    assert headers[UNIFIED + "status"] == "allowed"
    assert headers[UNIFIED + "5h-utilization"] == "0.86"
    assert headers[UNIFIED + "5h-reset"] == str(reset)
    assert headers[UNIFIED + "reset"] == str(reset)
    assert headers[UNIFIED + "representative-claim"] == "five_hour"
    assert headers[UNIFIED + "7d-status"] == "allowed"


def test_a_spent_window_refuses_until_its_reset(simulator: Simulator, api: Api) -> None:
    simulator.limit(ADA, {"7d": {"status": "rejected", "reset": int(time.time()) + 684}})

    refused = api.ask()

    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.headers[UNIFIED + "status"] == "rejected"
    assert refused.headers[UNIFIED + "representative-claim"] == "seven_day"
    assert 680 <= int(refused.headers["retry-after"]) <= 684


def test_a_window_whose_retoldhas_passed_is_fresh(simulator: Simulator, api: Api) -> None:
    simulator.limit(ADA, {"5h": {"status": "rejected", "reset": int(time.time()) - 1}})

    answer = api.ask()

    assert answer.status_code == 200
    assert answer.headers[UNIFIED + "5h-utilization"] == "0.0"


def test_a_model_window_counts_for_its_family_only(simulator: Simulator, api: Api) -> None:
    simulator.limit(ADA, {"7d_oi": {"status": "rejected"}})

    fable = api.ask(model="claude-fable-5-2")
    opus = api.ask(model="claude-opus-5-5")

    assert fable.status_code == 429
    assert fable.headers[UNIFIED + "7d_oi-status"] == "rejected"
    assert fable.headers["x-should-retry"] == "true"
    assert opus.status_code == 200
    assert UNIFIED + "7d_oi-status" not in opus.headers


def test_credits_serve_beyond_a_spent_window_and_say_so(simulator: Simulator, api: Api) -> None:
    simulator.limit(ADA, {"5h": {"status": "rejected"}})
    simulator.overage(ADA)

    paid = api.ask()
    simulator.overage(ADA, in_use=False)
    refused = api.ask()

    assert paid.status_code == 200
    assert paid.headers[UNIFIED + "status"] == "allowed"
    assert paid.headers[UNIFIED + "5h-status"] == "rejected"
    assert paid.headers[UNIFIED + "overage-in-use"] == "true"
    assert paid.headers[UNIFIED + "overage-status"] == "allowed"
    assert refused.status_code == 429
    assert UNIFIED + "overage-in-use" not in refused.headers


def test_the_limits_of_an_api_key_are_what_they_were_toldto(simulator: Simulator, api: Api) -> None:
    key = Api(api.client, simulator.api_key("ci"))
    reset = int(time.time()) + 30
    simulator.per_minute("ci", input_tokens={"limit": 50, "remaining": 0, "reset": reset})

    told = key.ask().headers
    simulator.per_minute("ci", input_tokens=None)
    usual = key.ask().headers

    prefix = "anthropic-ratelimit-input-tokens-"
    assert (told[prefix + "limit"], told[prefix + "remaining"]) == ("50", "0")
    assert datetime.fromisoformat(told[prefix + "reset"]).timestamp() == reset
    assert usual[prefix + "limit"] == "400000"


def test_a_limit_that_no_key_has_is_refused(simulator: Simulator) -> None:
    simulator.api_key("ci")

    with pytest.raises(RuntimeError, match="unknown limit: images"):
        simulator.per_minute("ci", images={"limit": 1})
    with pytest.raises(RuntimeError, match="no API key"):
        simulator.per_minute("nobody", requests={"limit": 1})
