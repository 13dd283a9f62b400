"""Two real processes on one database want the same token at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection

from accounts.models import Account, Credential
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


def test_fifty_demands_in_two_processes_cause_exactly_one_refresh(
    account: Account, simulator: Simulator
) -> None:
    seen = account.credential_id
    simulator.script({"path": "/v1/oauth/token"}, delay=0.3)
    command = [sys.executable, "-c", ASKS, str(account.pk), str(seen), "25"]
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = {process.communicate(timeout=30)[0].strip() for process in processes}
    finally:
        for process in processes:
            process.kill()
            process.wait()

    newest = Credential.objects.get(generation=2)
    assert answers == {f"RENEWED:{newest.id}"}
    assert Account.objects.get().credential_id == newest.id
    assert simulator.token_ledger()["refreshes"] == 1
