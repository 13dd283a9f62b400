"""Real processes on one database: two that want the same token at once, one that is killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from accounts import tokens
from accounts.models import Account, Credential
from accounts.renewal import Outcome
from tests.support.simulator import Simulator

ROOT = Path(__file__).resolve().parents[2]
# Says that it is ready, waits for the word, then asks as a web process does.
ASKS = """
import asyncio, sys, uuid
import django
django.setup()
from accounts import tokens
account, seen, times = int(sys.argv[1]), uuid.UUID(sys.argv[2]), int(sys.argv[3])
async def ask():
    renewals = await asyncio.gather(*(tokens.renewed(account, seen) for _ in range(times)))
    print(*{f"{r.outcome.name}:{r.credential}" for r in renewals})
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(ask())
"""

Started = subprocess.Popen[str]
pytestmark = pytest.mark.django_db(transaction=True)


def environment() -> dict[str, str]:
    config, name = settings.CONFIG, str(connection.settings_dict["NAME"])
    url = f"sqlite:///{name}"
    if connection.vendor == "postgresql":
        url = urlsplit(config.database_url)._replace(path=f"/{name}").geturl()
    keys = ",".join(key.get_secret_value() for key in config.credential_keys)
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "proxy_project.settings",
        "DATABASE_URL": url,
        "CREDENTIAL_KEYS": keys,
        "SECRET_KEY": config.secret_key.get_secret_value(),
        "KEY_PEPPER": config.key_pepper.get_secret_value(),
        "OAUTH_TOKEN_URL": config.oauth_token_url,
        "UPSTREAM_BASE_URL": config.upstream_base_url,
    }


@pytest.fixture
def start(account: Account) -> Iterator[Callable[[int], Started]]:
    """Start a process that asks so many times at once as soon as it gets a line."""
    processes: list[Started] = []

    def start_one(times: int) -> Started:
        command = [sys.executable, "-c", ASKS, str(account.pk), str(account.credential_id)]
        process = subprocess.Popen(
            [*command, str(times)],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()


def go(*processes: Started) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def test_fifty_demands_in_two_processes_cause_exactly_one_refresh(
    start: Callable[[int], Started], simulator: Simulator
) -> None:
    simulator.script({"path": "/v1/oauth/token"}, delay=0.3)
    processes = [start(25), start(25)]

    go(*processes)
    answers = {process.communicate(timeout=30)[0].strip() for process in processes}

    newest = Credential.objects.get(generation=2)
    assert answers == {f"RENEWED:{newest.id}"}
    assert Account.objects.get().credential_id == newest.id
    assert simulator.token_ledger()["refreshes"] == 1


def test_a_process_killed_between_the_rotation_and_the_commit_is_noticed(
    start: Callable[[int], Started],
    account: Account,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "CONFIRM_SECONDS", 0.05)
    simulator.script({"path": "/v1/oauth/token"}, process=True, delay=30)
    seen = account.credential_id
    assert seen is not None
    process = start(1)

    go(process)
    while not simulator.token_ledger()["refreshes"]:
        time.sleep(0.02)
    process.kill()
    process.wait()

    past = timezone.now() - timedelta(seconds=1)
    Account.objects.filter(pk=account.pk, intent_credential=seen).update(lease_until=past)
    assert asyncio.run(tokens.renewed(account.pk, seen)).outcome is Outcome.TRY_LATER
    assert Account.objects.get().status == "active"

    Credential.objects.filter(pk=seen).update(expires_at=timezone.now() + timedelta(minutes=9))
    assert asyncio.run(tokens.renewed(account.pk, seen)).outcome is Outcome.DEAD
    dead = Account.objects.get()
    assert (dead.status, dead.reason) == ("invalid", "refresh_interrupted")
