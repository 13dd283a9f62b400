"""After a load of every kind, records, sums and reports are what the upstream's own books say."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.utils import timezone

from sessions_limit import keys
from tests.relay.conftest import Relay, relay
from tests.support import mixed_load
from tests.support.audit import Audit
from tests.support.books import MONEY, SUMMED, sums
from tests.support.mixed_load import NOBODY
from tests.support.postgres import Server
from tests.support.product import Product
from tests.support.simulator import Simulator
from usage import asking, export, recorder, reports, rollup

__all__ = ["relay"]
REPORTS = {"tokens": SUMMED[:-2], "cost": (MONEY[0], "unpriced"), "cache": (MONEY[1],)}
COLUMNS = (*SUMMED, "unpriced")
ROLLED = (
    "SELECT account, key, model, "
    + ", ".join(f"SUM({name.removesuffix('_micro_usd')})" for name in COLUMNS)
    + ", SUM(requests) FROM usage_usageperiod WHERE grouping = 'each' GROUP BY account, key, model"
)
PEOPLE = ("ada", "grace", "linus", "barbara", "edsger")
KEYS = ("a", "b", "c", "d")
OUTAGE = 30
# Lost, wrong, token renewed, limit reached, refused, broken, busy, delivered.
ROWS = {"D05", "D07", "D11", "D16", "D20", "D21", "D22", "D37"}
Figures = dict[str, Any]


async def test_two_hundred_mixed_requests_end_in_equal_sums(relay: Relay) -> None:
    await relay.link("ada", "grace", "linus")
    await relay.add_api_key("margaret")
    secrets = {name: await _key(name) for name in KEYS} | {NOBODY: await _key(NOBODY, "none")}
    mixed_load.script(relay.simulator, ["ada@example.com"])
    wishes = mixed_load.plan(200, KEYS, seed=5)

    seen = await mixed_load.run(relay.url, secrets, wishes, each=0.005, at_once=40)
    await relay.running.idle()
    await recorder.appender.flushed()
    audit = Audit(seen, relay.simulator.requests(), await sync_to_async(_written)())

    _is_equal(audit, rolled=await sync_to_async(_rolled)())
    for metric, group in _reports():
        _is_told(audit, metric, group, await sync_to_async(_report)(metric, group))


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.end()


@pytest.fixture
def product(tmp_path: Path, simulator_process: Simulator, server: Server) -> Iterator[Product]:
    simulator_process.reset()
    running = Product(tmp_path, simulator_process, postgres=server.url)
    yield running
    running.end()


@pytest.mark.slow
async def test_five_thousand_through_outages_end_in_equal_sums(
    product: Product, server: Server
) -> None:
    simulator = product.simulator
    for name in PEOPLE:
        product.link(f"{name}@example.com")
    secret = simulator.api_key("margaret")
    product.manage("account", "add", "--kind", "api_key", "--name", "margaret", given=secret)
    secrets = {name: product.key(name) for name in KEYS}
    nobody = product.manage("key", "create", "--name", NOBODY, "--label", "none")
    secrets[NOBODY] = nobody["key"]
    mixed_load.script(simulator, ["ada@example.com", "grace@example.com"])
    wishes = mixed_load.plan(5000, KEYS, seed=7)

    troubles = asyncio.create_task(asyncio.to_thread(_make_trouble, product, server))
    seen = await mixed_load.run(product.url, secrets, wishes, each=0.022, at_once=80)
    await troubles
    _wait_for_records(product, sum(bool(one.relay_id) for one in seen))
    records = product.lines("usage", "export", "--kind", "records")
    audit = Audit(seen, simulator.requests(), records)

    _is_equal(audit, rolled=_asked(product, ROLLED))
    assert {attempt["row"] for r in records for attempt in r["trail"]["attempts"]} >= ROWS
    token = product.manage("token", "create", "--name", "test")["token"]
    with httpx2.Client(headers={"authorization": f"Bearer {token}"}, trust_env=False) as client:
        for metric, group in _reports():
            asked = {"metric": metric, "group": group}
            answer = client.get(f"{product.url}/api/usage", params=asked).raise_for_status()
            rows = [{"label": row["label"], **row["figures"]} for row in answer.json()["rows"]]
            _is_told(audit, metric, group, rows)


def _make_trouble(product: Product, server: Server) -> None:
    """Kill the worker three times, stop the database for half a minute, end tokens and limits."""
    simulator = product.simulator

    def kill_worker() -> None:
        product.serve.children()["worker"].kill()

    def limit(name: str) -> Callable[[], None]:
        window = {"status": "rejected", "utilization": 1.0}
        return lambda: simulator.limit(
            f"{name}@example.com", {"5h": window | {"reset": time.time() + 8}}
        )

    def expire(name: str) -> Callable[[], None]:
        return lambda: simulator.expire_access(f"{name}@example.com")

    troubles: dict[float, Callable[[], Any]] = {
        5: limit("linus"),
        8: kill_worker,
        12: expire("barbara"),
        20: server.stop,
        30: limit("barbara"),
        35: kill_worker,
        20 + OUTAGE: server.start,
        60: expire("edsger"),
        65: limit("grace"),
        70: kill_worker,
        80: expire("linus"),
    }
    began = time.monotonic()
    for at, trouble in troubles.items():
        time.sleep(max(0.0, began + at - time.monotonic()))
        trouble()


def _wait_for_records(product: Product, least: int) -> None:
    """Wait until so many records are written and summed, and no other comes for five seconds."""
    query = "SELECT (SELECT count(*) FROM usage_requestrecord), count(*) FROM usage_dirtyperiod"
    last, since, end = -1, time.monotonic(), time.monotonic() + 120
    while time.monotonic() < end:
        ((count, dirty),) = _asked(product, query)
        if count != last:
            last, since = count, time.monotonic()
        if count >= least and not dirty and time.monotonic() - since > 5:
            return
        time.sleep(0.5)
    raise AssertionError(f"{last} records of at least {least} after two minutes")


def _is_equal(audit: Audit, rolled: Iterable[Sequence[Any]]) -> None:
    assert not audit.wrong, "\n".join(audit.wrong[:20])
    assert audit.unsure <= len(audit.records) / 50
    assert {"whole", "cut", "left"} == {one.ended for one in audit.seen}
    assert any(record["possible_double_spend"] for record in audit.records)
    names = {0: "", **{r["account_id"]: r["account_name"].partition("@")[0] for r in audit.records}}
    keys = {record["key_id"]: record["key_name"] for record in audit.records}
    told, asked = {}, Counter[str]()
    for account, key, model, *numbers, requests in rolled:
        asked[keys[key]] += requests
        if any(numbers):
            group = (names[account], keys[key], model)
            told[group] = dict(zip(COLUMNS, numbers, strict=True))
    assert told == sums(audit.truths, "account", "key", "model")
    assert asked == Counter(record["key_name"] for record in audit.records)


def _is_told(audit: Audit, metric: str, group: str, rows: Iterable[Figures]) -> None:
    columns = REPORTS[metric]
    found = {row["label"].partition("@")[0]: row for row in rows}
    known = {name: one for (name,), one in sums(audit.truths, group).items()}
    assert _some(found, columns) == _some(known, columns), (metric, group)


def _some(rows: dict[str, Figures], columns: Sequence[str]) -> dict[str, Figures]:
    """Return these columns of the rows in which any of them is not zero."""
    found = {name: {column: row[column] for column in columns} for name, row in rows.items()}
    return {name: one for name, one in found.items() if any(one.values())}


def _reports() -> Iterator[tuple[str, str]]:
    return ((metric, group) for metric in REPORTS for group in ("account", "key", "model"))


async def _key(name: str, *labels: str) -> str:
    return (await sync_to_async(keys.create)(name=name, by="test", labels=labels))[1]


def _written() -> list[Figures]:
    """Write and sum everything; return the records as they are exported."""
    while recorder.drain():
        pass
    rollup.roll_up()
    lines = b"".join(export.written("records", "json", asking.question(until=_soon())))
    return [json.loads(line) for line in lines.splitlines()]


def _report(metric: str, group: str) -> list[Figures]:
    rows = reports.report(asking.question(metric, group, until=_soon())).rows
    return [{"label": row.label, **row.figures} for row in rows]


def _soon() -> Any:
    return timezone.now() + timedelta(minutes=1)


def _rolled() -> list[Sequence[Any]]:
    with connection.cursor() as cursor:
        cursor.execute(ROLLED)
        return list(cursor.fetchall())


def _asked(product: Product, query: str) -> list[Sequence[Any]]:
    with psycopg.connect(product.settings["DATABASE_URL"]) as admin:
        return list(admin.execute(query).fetchall())  # type: ignore[call-overload]
