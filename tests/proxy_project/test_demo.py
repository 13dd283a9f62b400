"""`serve --demo` streams a reply from a throwaway pool and touches nothing of the operator's."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.serving import Serve


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    started: list[Serve] = []

    def start(**settings: str) -> Serve:
        started.append(Serve(tmp_path, "--demo", "--port", "0", **settings))
        return started[-1]

    yield start

    for one in started:
        one.end()


@pytest.mark.slow
def test_the_printed_line_streams_a_reply(demo):
    server = demo()
    line = server.hears(r"curl -N .*")[0]

    reply = subprocess.run([*shlex.split(line), "-sS"], capture_output=True, text=True, timeout=20)

    assert "event: message_stop" in reply.stdout, reply.stderr
    server.signal(signal.SIGTERM)
    assert server.ends(15) == 0


@pytest.mark.slow
def test_the_printed_command_works_on_the_demos_pool(demo, tmp_path):
    server = demo()
    line = server.hears(r"commands +(.*) account list")[1]
    url = server.hears(r"curl -N (\S+)/v1/messages")[1]
    env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}

    def run(arguments: str) -> str:
        command = f"{line} {arguments}"
        return subprocess.run(
            command, shell=True, cwd=tmp_path, env=env, check=True, capture_output=True, text=True
        ).stdout

    key = json.loads(run("key create --name cli --json"))["key"]
    run("account refresh ada")
    models = urllib.request.Request(f"{url}/v1/models", headers={"x-api-key": key})

    assert len(json.loads(run("account list --json"))) == 3
    assert (tmp_path / "var" / "demo" / "settings.env").stat().st_mode & 0o777 == 0o600
    with urllib.request.urlopen(models, timeout=10) as answer:
        assert answer.status == 200


@pytest.mark.slow
def test_nothing_of_the_operators_settings_is_used(demo, tmp_path):
    (tmp_path / ".env").write_text("UPSTREAM_BASE_URL=http://127.0.0.1:1\nRELAY_TIMEOUT=wrong\n")

    server = demo(
        CAROUSEL_ENV_FILE=".env",
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing",
        REDIS_URL="redis://127.0.0.1:1",
        SECRET_KEY="short",
        PUBLIC_URL="https://relay.example",
    )

    server.hears(r"console +http://127\.0\.0\.1:\d+/")
    assert not (tmp_path / "data").exists()
    assert (tmp_path / "var" / "demo" / "db.sqlite3").exists()


@pytest.mark.slow
def test_each_start_begins_anew(demo, tmp_path):
    first = demo()
    first.hears("curl -N ")
    first.end()
    left = tmp_path / "var" / "demo" / "left.txt"
    left.touch()

    second = demo()
    second.hears("curl -N ")

    assert not left.exists()


def test_a_folder_that_is_not_the_demos_is_left_alone(demo, tmp_path):
    theirs = tmp_path / "var" / "demo" / "precious.txt"
    theirs.parent.mkdir(parents=True)
    theirs.touch()

    server = demo()

    assert server.ends(10) == 1
    server.hears("was not made by the demo")
    assert theirs.exists()
