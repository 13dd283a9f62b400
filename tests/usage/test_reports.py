"""Reports by the API, the console and the command line: figures, zones, filters, files."""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from celery import current_app
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import AsyncClient, Client

from events.models import Event
from proxy_project import tokens
from sessions_limit import keys
from tests.usage.records import AT, row
from usage import asking, export, latency, pricelist, prices, recorder, reports, rollup, unpriced
from usage.models import Price, RequestRecord, UsagePeriod

DAY = timedelta(days=1)
RANGE = {"since": (AT - DAY).isoformat(), "until": (AT + DAY).isoformat()}
HOSTILE = '=HYPERLINK("http://x")'


@pytest.fixture
def some(db: None) -> int:
    """Three sessions of one key, one that was removed, and one without any; returns the key."""
    key = keys.create("laptop", by="ada")[0].pk
    used = {"input_tokens": 100, "output_tokens": 10, "cache_read_tokens": 300, "session": "s"}
    recorder.write(
        [
            row("a", key=key, **used),
            row("b", key=key, after=3600.0, status=529, ended="refused", verdict="D21"),
            row("c", model=HOSTILE, session="  -1+1", input_tokens=7, after=60.0),
            row("d", ended="client_gone", status=200, after=70_000.0),
        ]
    )
    rollup.roll_up()
    return int(key)


@pytest.fixture
def client(some: int) -> Client:
    """A caller of the API."""
    token = tokens.create("deploy", by="ada")[1]
    return Client(headers={"authorization": f"Bearer {token}"})


@pytest.fixture
def console(some: int) -> Client:
    """An operator in the console."""
    browser = Client()
    browser.force_login(User.objects.create(username="ada", is_staff=True))
    return browser


def ask(client: Client, path: str = "", **query: Any) -> Any:
    return client.get(f"/api/usage{path}", RANGE | query)


def figures(answer: Any) -> dict[str, dict[str, Any]]:
    return {one["label"]: one["figures"] for one in answer.json()["rows"]}


def test_a_report_needs_a_caller_that_may(some: int, client: Client) -> None:
    assert ask(Client()).status_code == 401
    assert ask(Client(), "/export").status_code == 401
    assert ask(client).status_code == 200


def test_requests_are_judged_and_whoever_hung_up_is_neither_success_nor_error(
    client: Client,
) -> None:
    total = ask(client).json()["total"]

    assert (total["requests"], total["successes"], total["errors"]) == (4, 2, 1)
    assert total["success_rate"] == pytest.approx(2 / 3)
    assert figures(ask(client, metric="errors", group="verdict"))["D21"]["share_of_all"] == 0.25


def test_the_cache_is_told_by_key_and_session_with_what_it_saved(some: int, client: Client) -> None:
    by_key = figures(ask(client, metric="cache", group="key"))
    by_session = figures(ask(client, metric="cache", group="session"))

    # 300 tokens at 5 USD per million instead of 0.5.
    expected = {"hit_ratio": 0.75, "saved_micro_usd": 1350}
    assert expected.items() <= by_key["laptop"].items()
    assert expected.items() <= by_session["s"].items()


def test_filters_and_groups_cross(some: int, client: Client) -> None:
    assert set(figures(ask(client, group="model", key=some))) == {"claude-opus-5"}
    assert (
        ask(client, group="status", key=some, model="claude-opus-5").json()["total"]["requests"]
        == 2
    )
    assert ask(client, group="session", session="s").json()["total"]["requests"] == 1
    assert ask(client, model="no such").json()["total"]["requests"] == 0


def test_by_session_a_range_may_not_have_too_many_requests(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "MOST_RECORDS", 3)

    assert ask(client, group="session").json()["errors"].keys() == {"since"}
    assert ask(client, group="session", session="s").status_code == 200
    assert ask(client, group="session", until=AT.isoformat()).status_code == 200


def test_who_was_removed_keeps_a_number(some: int) -> None:
    UsagePeriod.objects.filter(key=some).update(key=some + 1)

    assert reports.labelled("key", [0, some, some + 1]) == {
        0: "none",
        some: "laptop",
        some + 1: f"removed ({some + 1})",
    }


WRONG: list[tuple[dict[str, str], str]] = [
    ({"zone": "../../etc/passwd"}, "zone"),
    ({"zone": "Mars/Base"}, "zone"),
    ({"since": "2026-11-21T00:00Z", "until": "2026-11-20T00:00Z"}, "until"),
    ({"since": "2020-01-01T00:00Z"}, "since"),
    ({"group": "hour", "since": "2026-01-01T00:00Z"}, "since"),
    ({"session": "s"}, "session"),
    ({"metric": "duration", "group": "verdict"}, "group"),
    ({"metric": "first_byte", "group": "key", "account": "1"}, "group"),
    ({"metric": "x"}, "metric"),
    ({"account": "-1"}, "account"),
    ({"model": "a\0"}, "model"),
]


def test_what_cannot_be_asked_is_named(client: Client) -> None:
    for query, field in WRONG:
        for path in ("", "/export"):
            answer = ask(client, path, **query)

            assert answer.status_code == 422, query
            assert any(field in name for name in answer.json()["errors"]), query


@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
def test_the_ends_of_time_are_no_range(moment: datetime) -> None:
    with pytest.raises(reports.BadReport, match="between the years"):
        asking.question(until=moment.replace(tzinfo=UTC))


@pytest.mark.parametrize("kind", export.KINDS)
def test_a_file_holds_what_is_asked_and_no_formula(kind: str, client: Client) -> None:
    answer = ask(client, "/export", kind=kind, group="model")
    text = b"".join(answer.streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    lines = b"".join(ask(client, "/export", kind=kind, group="model", format="json"))

    column = "model" if kind == "records" else "label"
    assert f"'{HOSTILE}" in [one[column] for one in rows]
    assert len(rows) == (4 if kind == "records" else 2) == len(lines.splitlines())
    assert HOSTILE in [json.loads(line)[column] for line in lines.splitlines()]
    columns = text.splitlines()[0].split(",")
    assert len(set(columns)) == len(columns)
    if kind == "records":
        assert "'  -1+1" in [one["session"] for one in rows]
        assert rows[0]["key_name"] == "laptop"


def test_cells_that_begin_like_formulas_are_text() -> None:
    for text in ("=1", "+1", "-1", "@x", "\t=1", "\r=1", "  =1", "\u00a0@x", "＝1", "\n=1"):
        assert export.safe(text) == f"'{text}"
    assert [export.safe(value) for value in ("a=1", "", -5, None)] == ["a=1", "", -5, None]


def test_records_come_in_batches_each_once(some: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BATCH", 3)
    RequestRecord.objects.update(started_at=AT)
    recorder.write([row(str(number), after=number % 2) for number in range(8)])
    asked = asking.question(since=AT - DAY, until=AT + DAY)

    batches = list(export.records(asked))

    assert [len(batch) for batch in batches] == [3, 3, 3, 3]
    assert len({line["request_id"] for batch in batches for line in batch}) == 12


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"status": 529}, ["b"]),
        ({"model": HOSTILE}, ["c"]),
        ({"model": "claude-opus-5"}, ["a", "b", "d", "new"]),
        ({"verdict": "D21", "model": "claude-opus-5"}, ["b"]),
        ({"model": "nope"}, []),
        ({"session": "s"}, ["a"]),
        ({"account": 0}, ["a", "c", "b", "d", "new"]),
    ],
)
def test_filtered_records_are_found_where_the_sums_say_and_where_none_are_yet(
    filters: dict[str, Any], expected: list[str], some: int
) -> None:
    recorder.write([row("new", after=80_000.0)])
    asked = asking.question(since=AT - DAY, until=AT + DAY, filters=filters)

    found = [line["request_id"] for batch in export.records(asked) for line in batch]

    assert found == expected


@pytest.mark.django_db(transaction=True)
async def test_a_file_is_sent_while_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BATCH", 10)
    await sync_to_async(recorder.write)([row(str(number)) for number in range(35)])
    token = (await sync_to_async(tokens.create)("deploy", by="ada"))[1]
    query = RANGE | {"kind": "records", "format": "json"}

    answer = await AsyncClient().get(
        "/api/usage/export", query, headers={"authorization": f"Bearer {token}"}
    )
    chunks = [chunk async for chunk in answer.streaming_content]

    assert [len(chunk.splitlines()) for chunk in chunks] == [10, 10, 10, 5]
    await sync_to_async(connections.close_all)()


def test_percentiles_are_within_the_error_of_their_buckets() -> None:
    generator = random.Random(7)
    for spread in (0.1, 1.0, 2.0):
        times = sorted(generator.lognormvariate(0.5, spread) for _ in range(2000))
        counts: dict[int, int] = {}
        for seconds in times:
            number = latency.bucket(1000.0, 1000.0 + seconds)
            assert number is not None
            assert seconds <= latency.bound(number) * 1.001
            assert number == 0 or latency.bound(number - 1) * 0.999 <= seconds
            counts[number] = counts.get(number, 0) + 1
        for share in (0.5, 0.95, 0.99):
            found, exact = latency.percentile(counts, share), times[int(share * 2000) - 1]
            assert found is not None
            assert 1 / latency.GROWTH < found / exact < latency.GROWTH
    assert latency.percentile({}, 0.5) is None
    assert latency.bucket(5.0, None) is None
    assert latency.bucket(5.0, 4.0) == 0
    assert latency.bucket(0.0, 1e9) == latency.BUCKETS - 1


def test_times_are_reported_by_key_and_by_day(client: Client) -> None:
    by_key = figures(ask(client, metric="duration", group="key"))
    by_day = figures(ask(client, metric="first_byte", group="day"))

    assert by_key["laptop"]["p50_seconds"] == pytest.approx(1.5, rel=0.42)
    assert by_day["2026-11-20"]["requests"] == 3
    assert by_day["2026-11-19"] == {
        "requests": 0,
        "p50_seconds": None,
        "p95_seconds": None,
        "p99_seconds": None,
    }


def test_models_without_a_price_are_listed_until_they_are_priced(some: int, client: Client) -> None:
    assert [(one.model, one.requests) for one in unpriced.find(AT)] == [(HOSTILE, 1)]

    price = dict.fromkeys(("input", "output", "cache_read"), 1)
    written = {"cache_write_5m": 1, "cache_write_1h": 1}
    pricelist.put(HOSTILE, AT - DAY, by="ada", **price | written)
    pricelist.reprice(AT - DAY, AT + DAY, by="ada", only_unknown=True)
    rollup.roll_up()

    assert unpriced.find(AT) == []
    assert RequestRecord.objects.get(model=HOSTILE).cost == 7
    kinds = Event.objects.filter(kind__startswith="price.").values_list("kind", flat=True)
    assert set(kinds) == {"price.set", "price.applied"}


def test_the_page_shows_what_its_address_asks_and_links_to_the_same_in_files(
    some: int, console: Client
) -> None:
    query = {"metric": "tokens", "group": "model", "zone": "Asia/Kathmandu", "key": str(some)}
    days = {"since": "2026-11-19", "until": "2026-11-21"}

    page = console.get("/usage/", query | days)
    text = page.content.decode()

    assert page.status_code == 200
    assert "claude-opus-5" in text
    assert HOSTILE.split("(")[0] not in text.split("Tokens by model")[-1]
    link = text.split("?format=csv&amp;")[1].split('"')[0].replace("&amp;", "&")
    rows = b"".join(console.get(f"/api/usage/export?format=csv&{link}")).decode()
    assert "claude-opus-5,claude-opus-5,410,100" in rows
    assert "2026-11-19T00%3A00%3A00%2B05%3A45" in link


def test_the_page_says_what_is_wrong_with_its_address(console: Client) -> None:
    bad = ("zone=x", "since=soon", "metric=x", "account=x", "until=9999-12-31")
    for query in (*bad, "group=session&since=2020-01-01"):
        page = console.get(f"/usage/?{query}")

        assert page.status_code == 200
        assert "errorlist" in page.content.decode(), query


def test_prices_are_set_and_removed_in_the_console(some: int, console: Client) -> None:
    form = {"model": "glm-*", "valid_from": "2026-11-01", "prompt_from": "0", "web_search": "0"}
    usd = dict.fromkeys(
        ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"), "0.6"
    )

    assert console.post("/usage/prices/set/", form | usd).status_code == 302
    assert console.post("/usage/prices/set/", form | usd | {"input": "-1"}).status_code == 200
    (price,) = Price.objects.all()
    assert "glm-*" in console.get("/usage/prices/").content.decode()
    assert prices.own()[0].model == "glm-*"
    assert console.post(f"/usage/prices/{price.pk}/remove/").status_code == 302
    assert not Price.objects.exists()


def test_prices_wait_for_a_redis_that_is_away(
    console: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_app.conf, "broker_url", "redis://127.0.0.1:1/0")

    answer = console.post("/usage/prices/reprice/", {"since": "2026-11-01"}, follow=True)

    assert answer.status_code == 200
    assert "Redis does not answer" in answer.content.decode()


def test_pages_are_for_operators(db: None) -> None:
    nobody = Client()
    nobody.force_login(User.objects.create(username="eve"))

    for path in ("/usage/", "/usage/prices/"):
        assert nobody.get(path).status_code == 302


def test_the_command_reports_exports_and_prices(some: int, capsys: Any) -> None:
    span = ["--since", "2026-11-20", "--until", "2026-11-22", "--zone", "Europe/Berlin"]

    call_command("usage", "report", "--group", "key", *span)
    table = capsys.readouterr().out
    call_command("usage", "report", "--metric", "tokens", "--json", *span)
    told = json.loads(capsys.readouterr().out)
    call_command("usage", "export", "--kind", "records", "--json", *span)
    lines = capsys.readouterr().out.splitlines()
    call_command("usage", "reprice", "--json", *span)

    assert "laptop" in table
    assert told["total"]["input_tokens"] == 107
    assert [json.loads(line)["request_id"] for line in lines] == ["a", "c", "b", "d"]
    assert json.loads(capsys.readouterr().out) == {"changed": 0}
    for wrong in (["--since", "soon"], ["--since", "2026-11-23"], ["--zone", "x"]):
        with pytest.raises(CommandError, match=wrong[0] if wrong[1] != "2026-11-23" else "until"):
            call_command("usage", "report", *span, *wrong)


def test_a_day_of_the_zone_decides(client: Client) -> None:
    # The last record is of 07:26 UTC on the 21st: in Honolulu that is still the 20th.
    assert figures(ask(client, zone="Pacific/Honolulu"))["2026-11-20"]["requests"] == 4
    assert figures(ask(client, zone="UTC"))["2026-11-20"]["requests"] == 3
