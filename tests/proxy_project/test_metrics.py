"""Who may read the metrics, and what is answered while something is away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from accounts.models import Account, LimitWindow
from lib import counters, db, heartbeat
from lib import redis as clients
from lib.redis import for_jobs
from proxy_project import metrics
from sessions_limit import limiter

TOKEN = "0123456789abcdef"
BEARER = (b"authorization", b"Bearer " + TOKEN.encode())
HOST = (b"host", b"localhost:8000")
LOCAL, FAR = ("127.0.0.1", 5000), ("192.0.2.7", 5000)


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    counters.deltas.reset()
    yield
    counters.deltas.reset()
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()


@pytest.fixture
async def database(transactional_db: None) -> AsyncIterator[None]:
    """Leave no thread with a connection behind."""
    yield
    db.reset()
    await sync_to_async(connections.close_all)()


def scope(*headers: tuple[bytes, bytes], peer: Any = LOCAL, method: str = "GET") -> dict[str, Any]:
    return {"method": method, "headers": [HOST, *headers], "client": peer}


@pytest.mark.parametrize(
    ("token", "asked", "status"),
    [
        ("", scope(), 0),
        ("", scope(method="HEAD"), 0),
        ("", scope(method="POST"), 405),
        ("", scope(peer=("::1", 5000)), 0),
        ("", scope(peer=FAR), 404),
        ("", scope(peer=None), 404),
        ("", scope(BEARER, peer=FAR), 404),
        ("", scope((b"x-forwarded-for", b"127.0.0.1"), peer=FAR), 404),
        ("", scope((b"x-forwarded-for", b"127.0.0.1")), 404),
        ("", scope((b"x-forwarded-proto", b"https")), 404),
        ("", scope((b"x-real-ip", b"127.0.0.1")), 404),
        ("", scope((b"forwarded", b"for=127.0.0.1")), 404),
        ("", scope((b"via", b"1.1 proxy")), 404),
        ("", scope((b"host", b"rebound.example.com")), 404),
        (TOKEN, scope(BEARER), 0),
        (TOKEN, scope(BEARER, peer=FAR), 0),
        (TOKEN, scope(BEARER, (b"x-forwarded-for", b"192.0.2.9"), peer=FAR), 0),
        (TOKEN, scope(BEARER, method="DELETE"), 405),
        (TOKEN, scope(), 401),
        (TOKEN, scope(peer=FAR), 401),
        (TOKEN, scope(BEARER, BEARER), 401),
        (TOKEN, scope((b"authorization", b"Bearer " + b"x" * 16)), 401),
        (TOKEN, scope((b"authorization", b"Bearer \xff\xfe")), 401),
        (TOKEN, scope((b"authorization", b"Basic " + TOKEN.encode())), 401),
        (TOKEN, scope((b"authorization", b"Bearer ")), 401),
    ],
)
def test_the_token_opens_and_without_one_this_machine_alone(
    settings: Any, token: str, asked: dict[str, Any], status: int
) -> None:
    _set(settings, metrics_token=SecretStr(token))

    assert metrics.refusal(asked) == status


def test_behind_a_public_address_nobody_is_local(settings: Any) -> None:
    _set(settings, public_url="https://relay.example.com")

    assert metrics.refusal(scope()) == 404


async def test_while_redis_is_away_nothing_is_told(settings: Any) -> None:
    settings.REDIS_URL = "unix:///nonexistent/redis.sock"

    status, text = await _scrape()

    assert (status, text) == (503, "")


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite's readers never wait")
@pytest.mark.usefixtures("database")
async def test_while_the_database_hangs_the_rest_is_told_and_one_thread_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "PATIENCE", 0.1)
    counters.add("events", "test")

    with _locked_accounts() as waiting:
        told = [_samples((await _scrape())[1]) for _ in range(3)]
        hang = waiting()
    assert metrics._asking is not None
    await metrics._asking

    assert [samples["database_up",] for samples in told] == [0, 0, 0]
    assert [samples["events_total", "test"] for samples in told] == [1, 1, 1]
    assert "deliveries_pending" not in {name for name, *_ in told[0]}
    assert hang == 1


@pytest.mark.usefixtures("database")
async def test_a_scrape_tells_how_everything_stands(settings: Any) -> None:
    now = timezone.now()
    account = await Account.objects.acreate(name='a "b" \\ c', kind="oauth")
    await Account.objects.acreate(name="spent", kind="api_key", status="invalid")
    await LimitWindow.objects.acreate(
        account=account,
        name="5h",
        utilization=0.25,
        observed_at=now,
        reset_at=now.replace(year=now.year + 1),
    )
    counters.deltas.role = "web"
    counters.add("events", "account.refreshed", by=3)
    counters.level("requests_in_flight").value = 2
    counters.level("limiter_degraded").value = 1
    await sync_to_async(_fill)()

    status, text = await _scrape()

    assert status == 200
    samples = _samples(text)
    id = str(account.pk)
    for key, value in {
        ("events_total", "account.refreshed"): 3,
        ("requests_in_flight",): 2,
        ("streams_open",): 0,
        ("accounts", "oauth", "active"): 1,
        ("accounts", "api_key", "invalid"): 1,
        ("accounts", "oauth", "invalid"): 0,
        ("account_usable", id): 1,
        ("account_info", id, "oauth", 'a "b" \\ c'): 1,
        ("account_window_utilization_ratio", id, "5h"): 0.25,
        ("stream_rows", "requests"): 1,
        ("stream_rows", "facts"): 0,
        ("stream_dead_rows", "requests"): 1,
        ("stream_oldest_seconds", "facts"): 0,
        ("jobs_queued",): 2,
        ("deliveries_pending",): 0,
        ("processes", "web"): 1,
        ("database_up",): 1,
        ("sessions_active",): 0,
        ("sessions_living",): 1,
        ("limiter_degraded",): 1,
        ("limiter_degraded_seconds_total",): 0,
        ("sessions_admitted_alone_total",): 0,
    }.items():
        assert samples[key] == value, key
    assert 4 < samples["stream_oldest_seconds", "requests"] < 60
    assert 6 < samples["heartbeat_age_seconds", "worker"] < 60
    assert samples["account_window_reset_timestamp_seconds", id, "5h"] > now.timestamp()
    helps = [line.split(" ", 3)[3] for line in text.splitlines() if line.startswith("# HELP")]
    assert all(helps)
    names = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# HELP")}
    documented = (settings.BASE_DIR / "docs" / "operations.md").read_text(encoding="utf-8")
    assert {name for name in names if f"`{name}`" not in documented} == set()


@contextlib.contextmanager
def _locked_accounts() -> Iterator[Callable[[], int]]:
    """Let whoever reads the accounts wait; yield what tells how many do."""
    with ThreadPoolExecutor(1) as thread:
        holder = thread.submit(connection.copy).result()
        thread.submit(holder.set_autocommit, False).result()

        def ask(sql: str) -> Any:
            with holder.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchone()[0] if cursor.description else None

        thread.submit(ask, "LOCK TABLE accounts_account IN ACCESS EXCLUSIVE MODE").result()
        # Other tests have databases of their own in the same server.
        blocked = (
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
            "WHERE NOT granted AND datname = current_database()"
        )
        try:
            yield lambda: thread.submit(ask, blocked).result()
        finally:
            thread.submit(holder.rollback).result()
            thread.submit(holder.close).result()


def _fill() -> None:
    client = for_jobs()
    at = int((timezone.now().timestamp() - 5) * 1000)
    client.xadd("requests", {"d": "{}"}, id=f"{at}-0")
    client.xadd("requests:dead", {"d": "{}"})
    client.lpush("celery", "a", "b")
    # One of them has ended.
    client.zadd(limiter.ALL, {"key:1/a": time.time() + 60, "key:1/b": time.time() - 1})
    client.close()
    heartbeat.beat("worker", timezone.now().timestamp() - 7)


async def _scrape() -> tuple[int, str]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        await metrics.answer(scope(), send)
    finally:
        await clients.close()
    return sent[0]["status"], sent[1]["body"].decode()


def _samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("carousel_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _set(settings: Any, **given: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update=given)
