"""What keys have used agrees with their records, wherever these are on their way."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
import redis
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from accounts.models import Account
from lib import streams
from lib.redis import for_jobs
from sessions_limit.figures import Reader
from sessions_limit.keys import PERIODS
from sessions_limit.models import ClientKey
from sessions_limit.spans import span
from sessions_limit.standing import Standing, standing, standings
from tests.usage.records import row
from usage import prices, pruning, recorder, rollup, waiting
from usage.amounts import TOKENS, Amount
from usage.models import Price, RequestRecord

# A Friday; in Berlin it is 15:30.
NOW = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns")
USD = dict(zip(TOKENS, map(Decimal, ("3", "0.3", "3.75", "6", "15")), strict=True))
# Hours: before the month, the week, and the day that each zone has.
AGO = (0, 0.2, 0.5, 1.2, 3, 9, 15, 16, 30, 100, 400, 480, 490, 800)
pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Iterator[redis.Redis]:
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture
def key(db: None) -> ClientKey:
    return made("key")


def made(name: str, zone: str = "UTC", **terms: Any) -> ClientKey:
    return ClientKey.objects.create(name=name, hash=name, created_by="t", time_zone=zone, **terms)


def set_price(factor: int = 1, since: datetime = NOW - timedelta(days=90)) -> None:
    usd = {name.removesuffix("_tokens"): factor * price for name, price in USD.items()}
    Price.objects.create(model="priced-*", valid_from=since, **usd)


def use(name: str, key: int, at: datetime, **given: Any) -> dict[str, Any]:
    """Return the row of a request; all of its counts are hundreds, so that no cost is a part."""
    after = (at - datetime(2026, 11, 20, 12, 0, 1, tzinfo=UTC)).total_seconds()
    return row(name, after=after, key=key, model="priced-1") | given


def put(client: redis.Redis, *rows: dict[str, Any]) -> None:
    for one in rows:
        client.xadd(recorder.STREAM, {"d": orjson.dumps(one)})


def reckoned(
    rows: list[dict[str, Any]], key: ClientKey, now: datetime, factor: Callable[[Any], int]
) -> list[Amount]:
    """Return by a plain loop what a key used in its day, week and month."""
    found = []
    for period in PERIODS:
        start = span(period, now, key.time_zone).start.timestamp()
        ours = [one for one in rows if one["key"] == key.pk and one["started_at"] >= start]
        tokens = sum(one.get(name, 0) for one in ours for name in TOKENS)
        # Who says neither what came in nor what went out has no price.
        priced = [one for one in ours if one.keys() & {"input_tokens", "output_tokens"}]
        usd = sum(factor(one) * one.get(name, 0) * USD[name] for one in priced for name in TOKENS)
        found.append(Amount(tokens, int(usd)))
    return found


def read(reader: Reader, *keys: ClientKey, now: datetime = NOW, ours: Any = ()) -> Any:
    return reader.read({key.pk: key.time_zone for key in keys}, now, ours)


def used(reader: Reader, key: ClientKey, now: datetime = NOW) -> list[Amount]:
    return list(read(reader, key, now=now).keys[key.pk].used.values())


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))]
)
def test_figures_equal_a_plain_loop_wherever_the_records_are(
    client: redis.Redis, seed: int
) -> None:
    chance = random.Random(seed)
    set_price()
    keys = [made(zone, zone) for zone in ZONES]
    other, reader = made("other"), Reader()
    rows: list[dict[str, Any]] = []
    now = NOW

    def more() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for _ in range(chance.randrange(1, 12)):
            ago = timedelta(hours=chance.choice(AGO), seconds=chance.random())
            told = [name for name in TOKENS if chance.random() < 0.7]
            counts = {name: chance.choice((0, 100, 123_400)) for name in told}
            owner = chance.choice([*keys, other]).pk
            found.append(use(f"r{len(rows) + len(found)}", owner, now - ago, **counts))
        rows.extend(found)
        return found

    def drain_but_die() -> None:
        """Commit what waits, and be killed before it is taken out of the stream."""
        put(client, *more())
        with contextlib.suppress(redis.ResponseError):
            client.xgroup_create(recorder.STREAM, streams.GROUP, id="0")
        told: Any = client.xreadgroup(streams.GROUP, "writer", {recorder.STREAM: ">"})
        recorder.write([orjson.loads(fields["d"]) for _, fields in told[0][1]])

    steps: list[Callable[[], Any]] = [
        lambda: put(client, *more()),
        lambda: put(client, *chance.sample(rows, min(3, len(rows)))),  # told once more
        lambda: recorder.write(more()),
        recorder.drain,
        rollup.roll_up,
        lambda: rollup.roll_up() and prices.reprice(now - timedelta(days=60), now),
        drain_but_die,
    ]
    for _ in range(25):
        chance.choice(steps)()
        now += timedelta(minutes=chance.choice((0, 1, 20)))

        figures = read(reader, *keys, now=now)

        for key in keys:
            told = list(figures.keys[key.pk].used.values())
            assert told == reckoned(rows, key, now, lambda one: 1)


def test_prices_put_on_old_records_are_seen_at_once(client: redis.Redis, key: ClientKey) -> None:
    set_price()
    rows = [use(str(n), key.pk, NOW - timedelta(days=n), input_tokens=100) for n in range(15)]
    recorder.write(rows)
    rollup.roll_up(60)
    reader = Reader()
    assert used(reader, key) == reckoned(rows, key, NOW, lambda one: 1)

    Price.objects.all().delete()
    set_price(2, NOW - timedelta(days=10))
    prices.reprice(NOW - timedelta(days=20), NOW + timedelta(seconds=1))
    truth = reckoned(rows, key, NOW, lambda one: 2 * (int(one["request_id"]) <= 10))

    assert used(reader, key) == truth
    rollup.roll_up(60)
    assert used(reader, key) == truth


def test_sums_made_anew_between_two_looks_are_seen(client: redis.Redis, key: ClientKey) -> None:
    old = use("old", key.pk, NOW - timedelta(days=3), input_tokens=100)
    recorder.write([old])
    rollup.roll_up()
    reader = Reader()
    assert used(reader, key)[2] == Amount(100, 0)

    # It came late; its mark came and went since the last look.
    late = use("late", key.pk, NOW - timedelta(days=4), input_tokens=900)
    recorder.write([late])
    rollup.roll_up()

    assert used(reader, key)[1:] == [Amount(1000, 0), Amount(1000, 0)]


def test_what_is_pruned_counts_as_long_as_its_sums_do(
    client: redis.Redis, key: ClientKey, settings: Any
) -> None:
    recorder.write(
        [use(str(n), key.pk, NOW - timedelta(days=n), input_tokens=100) for n in (0, 5, 15)]
    )
    rollup.roll_up()
    reader = Reader()
    settings.CONFIG = settings.CONFIG.model_copy(update={"record_days": 1, "rollup_days": 10})

    before = used(reader, key)
    pruning.prune(NOW)

    assert RequestRecord.objects.count() == 1
    assert before[2] == Amount(300, 0)
    assert used(reader, key)[2] == Amount(200, 0)
    # A late mark on a period whose records are gone changes nothing: neither do its sums.
    rollup.mark([NOW - timedelta(days=5)])
    assert used(reader, key)[2] == Amount(200, 0)


def test_a_request_of_this_process_is_told_as_counted_as_soon_as_its_record_is_there(
    client: redis.Redis, key: ClientKey
) -> None:
    reader, ours = Reader(), ("a", "b", "c")
    told = [read(reader, key, ours=ours).counted]

    put(client, use("a", key.pk, NOW, input_tokens=100))
    told.append(read(reader, key, ours=ours).counted)
    recorder.drain()
    told.append(read(reader, key, ours=ours).counted)
    recorder.write([use("b", key.pk, NOW, input_tokens=100)])
    figures = read(reader, key, ours=ours)

    assert told == [set(), {"a"}, {"a"}]
    assert figures.counted == {"a", "b"}
    assert figures.keys[key.pk].used["day"] == Amount(200, 0)


def test_without_redis_what_was_known_stays(
    client: redis.Redis, key: ClientKey, settings: Any
) -> None:
    put(client, *(use(name, key.pk, NOW, input_tokens=100) for name in "ab"))
    reader = Reader()
    assert used(reader, key)[0] == Amount(200, 0)
    url, settings.REDIS_URL = settings.REDIS_URL, "unix:///nowhere/s"

    assert used(reader, key)[0] == Amount(200, 0)
    recorder.write([use("b", key.pk, NOW, input_tokens=100)])
    assert used(reader, key)[0] == Amount(200, 0)

    settings.REDIS_URL = url
    recorder.drain()
    assert used(reader, key)[0] == Amount(200, 0)


def test_much_that_nobody_can_write_is_looked_through_in_parts(
    client: redis.Redis, key: ClientKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST_GIVEN", 3)
    monkeypatch.setattr(waiting, "MOST_ASKED", 2)
    rows = [use(str(number), key.pk, NOW, input_tokens=100) for number in range(9)]
    put(client, *rows)
    client.xgroup_create(recorder.STREAM, streams.GROUP, id="0")
    given: Any = client.xreadgroup(streams.GROUP, "writer", {recorder.STREAM: ">"})
    ids = [entry for entry, _ in given[0][1]]
    reader = Reader()
    assert used(reader, key)[0] == Amount(900, 0)

    # Of these the writers die before they confirm it, of those none has begun to write.
    recorder.write(rows[:5])
    client.xack(recorder.STREAM, streams.GROUP, *ids[:2])
    told = [used(reader, key)[0].tokens for _ in range(5)]

    assert told == sorted(told, reverse=True)
    assert told[-1] == 900
    assert reader._waiting.rows.keys() == {"5", "6", "7", "8"}


def test_odd_rows_in_the_stream_count_nothing(client: redis.Redis, key: ClientKey) -> None:
    client.xadd(recorder.STREAM, {"lost": 3})
    client.xadd(recorder.STREAM, {"d": "no JSON"})
    put(client, {"key": key.pk}, use("a", key.pk, NOW, input_tokens="many"))
    put(client, use("b", key.pk, NOW, input_tokens=100))

    assert used(Reader(), key)[0] == Amount(100, 0)


def test_rows_that_wait_are_priced_as_their_records_will_be(
    client: redis.Redis, key: ClientKey
) -> None:
    compatible = Account.objects.create(name="glm", kind="compatible")
    part = {"type": "message", **dict.fromkeys(TOKENS, 1000)}
    terms = [
        {"model": "claude-opus-5-20990101", "input_tokens": 77, "output_tokens": 3},
        {"model": "a\0b", "answered_by": "claude-haiku-4-5", "cache_read_tokens": 7},
        {"model": "claude-opus-5", "account": compatible.pk, "input_tokens": 5},
        {"model": "claude-opus-5", "provider": "passthrough", "input_tokens": 5},
        {"model": "claude-opus-5", "input_tokens": 9, "web_searches": 3, "geo": "us"},
        {"model": "claude-opus-5", "output_tokens": 9, "service_tier": "batch"},
        {"model": "claude-opus-5", "output_tokens": 9, "speed": "fast"},
        {
            "model": "claude-opus-5",
            "input_tokens": 9,
            "parts": [part | {"model": "claude-opus-5"}, part | {"model": "claude-haiku-4-5"}],
        },
    ]
    for number, given in enumerate(terms):
        put(client, use(str(number), key.pk, NOW, **given))
        on_its_way = used(Reader(), key)

        recorder.drain()

        assert used(Reader(), key) == on_its_way
    assert on_its_way[0].cost == sum(record.cost or 0 for record in RequestRecord.objects.all())


def test_what_is_closed_is_not_read_again(client: redis.Redis, key: ClientKey) -> None:
    recorder.write(
        [use(str(n), key.pk, NOW - timedelta(hours=n), input_tokens=100) for n in range(24)]
    )
    rollup.roll_up(60)
    reader = Reader()
    used(reader, key)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        again = used(reader, key, NOW + timedelta(minutes=10))

    assert again[2] == Amount(2400, 0)
    assert not [q for q in queries if "NOT" in q["sql"] or '"key" IN' in q["sql"]]
    assert len(queries) <= 8
    with CaptureQueriesContext(connection) as queries:
        used(reader, key, NOW + timedelta(minutes=15))
    assert [q for q in queries if '"key" IN' in q["sql"]]


def test_a_standing_tells_each_budget(client: redis.Redis) -> None:
    set_price()
    key = made("berlin", "Europe/Berlin", tokens_per_day=1000, cost_per_month=5_000_000)
    free = made("free")
    recorder.write([use("a", key.pk, NOW, input_tokens=200)])
    put(client, use("b", key.pk, NOW, output_tokens=300))

    told = standing(key, NOW)

    midnight = datetime(2026, 11, 20, 23, tzinfo=UTC)
    assert told == [
        Standing("day", "tokens", 1000, 500, midnight),
        Standing("month", "cost", 5_000_000, 5100, midnight + timedelta(days=10)),
    ]
    assert told[0].share == 0.5
    assert standing(free) == []
    assert standings([key, free], NOW) == {key.pk: told, free.pk: []}


@pytest.mark.django_db(transaction=True)
def test_nothing_is_missed_while_records_move_on(client: redis.Redis, key: ClientKey) -> None:
    reader, put_so_far, stop = Reader(), 0, threading.Event()

    def work() -> None:
        """Write and sum up, as the worker does, without a pause."""
        try:
            while not stop.is_set():
                recorder.drain()
                rollup.roll_up()
        finally:
            connections.close_all()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(40):
            for _ in range(5):
                put(client, use(f"r{put_so_far}", key.pk, NOW, input_tokens=100))
                put_so_far += 1
            assert used(reader, key)[0].tokens >= 100 * put_so_far
    finally:
        stop.set()
        worker.join()

    assert used(reader, key)[0].tokens == 100 * put_so_far
