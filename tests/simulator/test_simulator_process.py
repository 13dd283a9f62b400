"""The process: one line on stdout, a clean end."""

from __future__ import annotations

import subprocess
import sys
import time

import httpx2
import pytest

from tests.support.simulator import ROOT, Simulator


def test_it_ends_with_status_zero_on_sigterm_even_with_a_stalled_client() -> None:
    simulator = Simulator.start(accounts=1)
    token = simulator.setup_token("ada@example.com")
    simulator.script({}, stall_after=10)
    headers = {
        "authorization": f"Bearer {token}",
        "anthropic-beta": "oauth-2025-04-20",
        "anthropic-version": "2023-06-01",
    }
    body = {"model": "claude-x", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with (
        httpx2.Client(base_url=simulator.url, trust_env=False, verify=False) as client,
        client.stream("POST", "/v1/messages", json=body, headers=headers),
    ):
        began = time.monotonic()
        status = simulator.stop()

    assert status == 0
    assert time.monotonic() - began < 2


def test_it_prints_one_line_and_dies_with_its_parent() -> None:
    inner = [sys.executable, "-m", "simulator", "--port", "0", "--die-with-parent"]
    parent = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen({inner!r}, stdout=subprocess.PIPE, text=True)\n"
        "print(child.stdout.readline().strip(), flush=True)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", parent], cwd=ROOT, capture_output=True, text=True, check=True
    )

    url = done.stdout.partition('"url": "')[2].partition('"')[0]
    assert url.startswith("http://127.0.0.1:")
    with pytest.raises(httpx2.ConnectError):
        _poll_until_gone(url)


def test_people_at_the_start_have_distinct_ids_and_plans(simulator: Simulator) -> None:
    people = simulator.accounts()

    assert list(people) == ["ada@example.com", "grace@example.com", "linus@example.com"]
    assert len({person["account_uuid"] for person in people.values()}) == 3
    plans = [person["organization_type"] for person in people.values()]
    assert plans == ["claude_max", "claude_pro", "claude_team"]


def _poll_until_gone(url: str) -> None:
    for _ in range(100):
        httpx2.get(f"{url}/_control/accounts", trust_env=False)
        time.sleep(0.02)
