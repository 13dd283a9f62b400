"""`manage.py doctor`: each thing is looked at by itself, told in a sentence, and never a secret."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.db.backends.base.base import BaseDatabaseWrapper

from accounts import adding
from accounts.models import Credential
from lib import heartbeat
from lib.crypto import Ring
from lib.redis import for_jobs
from proxy_project import checkups, doctor, surroundings, tasks
from proxy_project.doctor import Check, Finding, State
from tests.support.simulator import Simulator

OK, WARNING, FAILED = State.OK, State.WARNING, State.FAILED
SECRET = "sk-ant-api03-" + "Ab3_" * 12


@pytest.fixture
def signs_of_life() -> Iterator[None]:
    """A worker and a beat that have just given theirs."""
    heartbeat.beat(tasks.WORKER)
    heartbeat.beat(tasks.BEAT)
    yield
    _forget_signs()


@pytest.fixture
def well(
    transactional_db: None,
    simulator: Simulator,
    signs_of_life: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Everything that a relay stands on, and an account."""
    # The tests' data folder may be in a memory of 64 MB.
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=9 * 1024**3))
    adding.add_secret("api_key", "team", SECRET, "test")


def examined(*arguments: str) -> tuple[dict[str, Any], int]:
    out, code = StringIO(), 0
    try:
        call_command("doctor", "--json", *arguments, stdout=out)
    except SystemExit as end:
        code = int(str(end.code))
    return json.loads(out.getvalue()), code


def states(report: dict[str, Any]) -> dict[str, str]:
    return {told["check"]: told["state"] for told in report["checks"]}


def test_all_is_well(well: None) -> None:
    report, code = examined()

    # The tests' Valkey keeps no file.
    bad = {told["check"]: told for told in report["checks"] if told["state"] != "ok"}
    assert set(bad) == {"redis"}
    assert "append-only" in bad["redis"]["sentence"]
    assert (report["ok"], code) == (True, 0)
    assert states(report).keys() == {
        *("database", "redis", "clock", "worker", "beat", "credentials", "accounts"),
        *("upstream", "token host", "disk", "settings", "versions"),
    }
    assert SECRET not in json.dumps(report)


def test_what_fails_stops_nothing_else_and_has_a_next_step(
    well: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://user:{SECRET}@127.0.0.1:{unused.getsockname()[1]}"
    settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_base_url": url})
    kept, settings.REDIS_URL = settings.REDIS_URL, "unix:///nowhere/at-all"
    with monkeypatch.context() as patch:
        patch.setattr(BaseDatabaseWrapper, "ensure_connection", _refuse)

        report, code = examined()
    settings.REDIS_URL = kept

    found = states(report)
    assert (report["ok"], code) == (False, 1)
    assert {name for name, state in found.items() if state == "failed"} == {
        *("database", "redis", "worker", "beat", "credentials", "accounts", "upstream"),
    }
    assert found["token host"] == found["disk"] == "ok"
    assert all(told["next"] for told in report["checks"] if told["state"] == "failed")
    assert "Ab3_" not in json.dumps(report)


def _refuse(*_: object) -> None:
    raise DatabaseError(f"connection refused for postgresql://u:{SECRET}@db/x\nmore")


def test_a_check_that_hangs_or_breaks_is_told_of() -> None:
    release = threading.Event()

    def breaks() -> list[Finding]:
        raise RuntimeError(f"odd: {SECRET}")

    started = time.monotonic()
    late, broken, fine = doctor.examine(
        [
            Check("late", lambda: [] if release.wait(20) else [], 0.1),
            Check("broken", breaks),
            Check("fine", lambda: [Finding("fine", OK, "It is.")]),
        ]
    )
    release.set()

    assert time.monotonic() - started < 2
    assert (late.state, late.sentence) == (FAILED, "It did not answer within 0.1 s.")
    assert (broken.state, "RuntimeError: odd" in broken.sentence) == (FAILED, True)
    assert "Ab3_" not in broken.sentence
    assert doctor.lines([fine]) == ["ok       fine           It is."]


def test_what_no_key_opens_and_what_an_older_one_opens_is_counted(
    well: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bytes(32), bytes([1]) * 32
    row = Credential.objects.get()
    sealed = Ring([first]).seal(SECRET, Credential._meta.get_field("access_token").bound_to(row))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE accounts_credential SET access_token = %s", [sealed])

    def looked(*keys: bytes) -> Finding:
        monkeypatch.setattr("accounts.resealing.ring", lambda: Ring(keys))
        return next(checkups.credentials())

    assert looked(first).state is OK
    assert looked(second, first).state is WARNING
    assert looked(second).state is FAILED


def test_migrations_that_wait_are_named(transactional_db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, app, name, applied FROM django_migrations WHERE app = 'relay'")
        rows = cursor.fetchall()
        cursor.execute("DELETE FROM django_migrations WHERE app = 'relay'")
    try:
        found = next(checkups.database())
    finally:
        with connection.cursor() as cursor:
            for row in rows:
                cursor.execute("INSERT INTO django_migrations VALUES (%s, %s, %s, %s)", row)

    assert found.state is FAILED
    assert "relay.0001" in found.sentence


@pytest.mark.parametrize(
    ("info", "state"),
    [
        ({"aof_enabled": 1, "maxmemory_policy": "allkeys-lru", "maxmemory": 0}, None),
        ({"aof_enabled": 1, "maxmemory_policy": "allkeys-lru", "maxmemory": 9}, FAILED),
        ({"aof_enabled": 1, "maxmemory_policy": "noeviction", "maxmemory": 9}, None),
        ({"aof_enabled": 1, "maxmemory": 10, "used_memory": 9}, FAILED),
        ({"aof_enabled": 0}, WARNING),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, FAILED),
        ({"aof_enabled": 1, "role": "slave"}, FAILED),
    ],
)
def test_a_redis_that_would_lose_something(info: dict[str, Any], state: State | None) -> None:
    assert next((found for found, _, _ in checkups._troubles(info)), None) == state


@pytest.mark.parametrize(("skew", "state"), [(-4.0, OK), (6.0, WARNING), (-61.0, FAILED)])
def test_clocks_that_differ(skew: float, state: State) -> None:
    assert checkups.clock("redis", skew).state is state


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"public_url": "http://relay.example"}, "PUBLIC_URL"),
        ({"public_url": "https://relay.example"}, "no proxy is trusted"),
        ({"trusted_proxies": ("0.0.0.0/0",)}, "TRUSTED_PROXIES"),
        ({"trusted_proxies": ("::/0",)}, "TRUSTED_PROXIES"),
        ({"upstream_base_url": "http://api.anthropic.com"}, "in the clear"),
        ({"upstream_base_url": "https://api.example"}, "reads every prompt"),
        ({"log_level": "DEBUG"}, "LOG_LEVEL"),
        ({"relay_debug_headers": True}, "RELAY_DEBUG_HEADERS"),
        ({"allow_loopback_upstreams": True}, "ALLOW_LOOPBACK_UPSTREAMS"),
        ({"session_limit": True, "session_fail_mode": "open"}, "SESSION_FAIL_MODE"),
    ],
)
def test_settings_that_look_unsafe(settings: Any, changed: dict[str, Any], word: str) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update=changed)

    (found,) = surroundings.unsafe_settings()

    assert found.state is WARNING
    assert word in found.sentence


def test_signs_of_life_are_counted_and_forgotten(signs_of_life: None) -> None:
    now = time.time()
    (one,) = [sign for sign in heartbeat.living(now) if sign.name == tasks.WORKER]
    alive, late = list(checkups.jobs()), heartbeat.living(now + heartbeat.GONE + 5)
    _forget_signs()
    heartbeat.beat(tasks.WORKER, now - 40)
    silent, missing = checkups.jobs()

    assert (one.pid, one.host) == (os.getpid(), socket.gethostname())
    assert [found.state for found in alive] == [OK, OK]
    assert late == []
    assert (silent.state, missing.state) == (WARNING, FAILED)
    assert "serve --only beat" in missing.next


def test_beat_gives_its_sign_whenever_it_orders_the_workers() -> None:
    tasks._beat_is_alive(sender=tasks.heartbeat.name)
    tasks.heartbeat()

    assert {sign.name for sign in heartbeat.living()} == {tasks.BEAT, tasks.WORKER}
    _forget_signs()


def test_a_full_or_foreign_disk_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_free(free: int) -> State:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
        return next(checkups.disk()).state

    found = [with_free(free) for free in (2 * 1024**3, 500 * 1024**2, 1024)]

    assert found == [OK, WARNING, FAILED]


def _forget_signs() -> None:
    with contextlib.closing(for_jobs()) as client:
        client.delete(heartbeat.KEY)
