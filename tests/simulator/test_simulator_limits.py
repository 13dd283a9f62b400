"""Rate-limit windows: their headers and their refusals."""

from __future__ import annotations

import time

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


def test_a_window_whose_reset_has_passed_is_fresh(simulator: Simulator, api: Api) -> None:
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
