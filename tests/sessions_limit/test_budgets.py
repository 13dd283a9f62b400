"""A budget lets in until it is used, then refuses until it is renewed, and counts nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import time_machine
from asgiref.sync import sync_to_async
from django.db import OperationalError, connections

from lib import db
from lib import redis as clients
from lib.snapshot import DEAD
from sessions_limit import budgets
from sessions_limit.errors import Spent
from sessions_limit.keys import Key, budgets_of
from sessions_limit.models import ClientKey
from sessions_limit.standing import standing
from tests.usage.records import row
from usage import recorder
from usage.models import Price

# In Berlin it is a second before midnight.
NOW = datetime(2026, 11, 20, 22, 59, 59, tzinfo=UTC)
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
async def _knows_nothing() -> AsyncIterator[None]:
    budgets.reset()
    await clients.for_requests().flushdb()
    yield
    await clients.for_requests().flushdb()
    await clients.close()
    budgets.reset()
    db.reset()
    # The thread of the asynchronous ORM keeps its connection, and PostgreSQL its database, open.
    await sync_to_async(connections.close_all)()


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@sync_to_async
def made(name: str = "key", zone: str = "Europe/Berlin", **terms: Any) -> Key:
    one = ClientKey.objects.create(name=name, hash=name, created_by="t", time_zone=zone, **terms)
    return Key(one.pk, name, None, budgets=budgets_of(one), time_zone=zone)


def use(name: str, key: Key, at: datetime = NOW, **counts: Any) -> dict[str, Any]:
    return row(name, key=key.id, model="priced") | counts | {"started_at": at.timestamp()}


async def put(*rows: dict[str, Any]) -> None:
    """Let the records of requests be on their way, whatever process they are of."""
    for one in rows:
        await clients.for_requests().xadd(recorder.STREAM, {"d": orjson.dumps(one)})
    budgets.snapshot.invalidate()


async def refused(key: Key) -> Spent | None:
    try:
        await budgets.check(key)
    except Spent as refusal:
        return refusal
    return None


class Answer:
    """A request of this process, which tells of what it has used when we say so."""

    def __init__(self, id: str, key: Key) -> None:
        self.id, self.key = id, key
        self.told = use(id, key)
        budgets.begun(key, id, lambda: dict(self.told))

    def tells(self, **counts: int) -> Answer:
        self.told |= counts
        return self

    async def ends(self, *, is_recorded: bool = True) -> None:
        budgets.ended(self.key, self.id)
        if is_recorded:
            await clients.for_requests().xadd(recorder.STREAM, {"d": orjson.dumps(self.told)})


@pytest.fixture
def _looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "LOOK_SECONDS", 0.0)


async def test_a_budget_in_berlin_ends_at_its_midnight_and_says_so(
    clock: time_machine.Traveller,
) -> None:
    key = await made(tokens_per_day=1_000_000)
    await put(use("a", key, cache_read_tokens=999_999))
    assert await refused(key) is None
    await put(use("b", key, output_tokens=1))

    refusal = await refused(key)

    assert refusal is not None
    assert refusal.seconds == 1
    assert str(refusal) == (
        "The budget of 1,000,000 tokens a day of this key is used up. "
        "It is renewed on 21 November at 00:00 (Europe/Berlin)."
    )
    # Nothing was read again: the new day begins with what is known already.
    clock.shift(refusal.seconds)
    assert await refused(key) is None
    budgets.snapshot.invalidate()
    assert await refused(key) is None
    clock.shift(-0.001)
    budgets.snapshot.invalidate()
    assert await refused(key) is not None


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("terms", "seconds", "words"),
    [
        ({"cost_per_day": 5_000_000}, 1, "5.00 USD a day of this key is used up. It is renewed"),
        ({"cost_per_week": 1}, 2 * 86400 + 1, "0.000001 USD a week of this key is used up. It is "),
        ({"tokens_per_month": 1}, 10 * 86400 + 1, "1 token a month of this key is used up. It is "),
        # The last of them counts.
        ({"tokens_per_day": 1, "tokens_per_week": 1}, 2 * 86400 + 1, "on 23 November at 00:00"),
        ({"tokens_per_day": 1, "tokens_per_week": 9**9}, 1, "on 21 November at 00:00"),
    ],
)
async def test_a_refusal_says_which_budget_is_used_and_when_it_is_renewed(
    terms: dict[str, Any], seconds: int, words: str
) -> None:
    usd = dict.fromkeys(("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"), 5)
    await Price.objects.acreate(model="priced", valid_from=NOW - timedelta(days=9), **usd)
    key = await made(**terms)
    await put(use("a", key, input_tokens=999_999))
    if "cost_per_day" in terms:
        assert await refused(key) is None
    await put(use("b", key, input_tokens=1))

    refusal = await refused(key)

    assert refusal is not None
    assert refusal.seconds == seconds
    assert words in str(refusal)


@pytest.mark.usefixtures("clock", "_looks_each_time")
async def test_what_runs_counts_with_what_its_answer_has_told() -> None:
    key = await made(tokens_per_day=1000)
    one, two = Answer("a", key).tells(input_tokens=300), Answer("b", key)
    assert await refused(key) is None

    two.tells(input_tokens=600)
    assert await refused(key) is None
    one.tells(output_tokens=100)
    assert await refused(key) is not None


@pytest.mark.usefixtures("clock", "_looks_each_time")
async def test_what_ends_is_counted_once_whoever_knows_of_it() -> None:
    key = await made(tokens_per_day=1000)
    await refused(key)
    answer = Answer("a", key).tells(input_tokens=500, output_tokens=499)

    await answer.ends()
    # The figures do not hold it yet, then they do.
    assert await refused(key) is None
    assert list(budgets._ours[key.id]) == ["a"]
    budgets.snapshot.invalidate()
    assert await refused(key) is None
    assert not budgets._ours
    await put(use("b", key, input_tokens=1))
    assert await refused(key) is not None
    # Its record is there before the relay has noted its end.
    other = await made("other", tokens_per_day=1000)
    running = Answer("c", other).tells(input_tokens=999)
    await put(running.told)
    assert await refused(other) is None
    await running.ends(is_recorded=False)
    assert await refused(other) is None


@pytest.mark.usefixtures("clock", "_looks_each_time")
async def test_parallel_requests_go_beyond_a_budget_only_by_what_is_under_way() -> None:
    key, at_once = await made(tokens_per_day=10_000), 8
    let_in = 0

    async def client() -> None:
        nonlocal let_in
        while await refused(key) is None:
            let_in += 1
            answer = Answer(f"r{let_in}", key).tells(input_tokens=40)
            await asyncio.sleep(0.001)
            answer.tells(output_tokens=60)
            await answer.ends()

    await asyncio.gather(*(client() for _ in range(at_once)))
    await sync_to_async(recorder.drain)()
    budgets.snapshot.invalidate()
    refusal, (told,) = await refused(key), await sync_to_async(standing)(key, NOW)

    assert 100 <= let_in < 100 + at_once
    assert refusal is not None
    assert told.used == 100 * let_in
    assert not budgets._ours


async def test_a_budget_of_nothing_lets_nothing_in() -> None:
    key = await made(cost_per_week=0)

    refusal = await refused(key)

    assert str(refusal) == "This key may spend nothing: 0.00 USD a week."


async def test_a_key_without_budgets_costs_nothing() -> None:
    key = await made()

    await budgets.check(key)
    budgets.begun(key, "a", dict)
    budgets.ended(key, "a")

    assert budgets.snapshot._value is None
    assert not budgets._ours


async def test_requests_do_not_wait_for_fresh_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    key, reads = await made(tokens_per_day=1000), 0
    load = budgets.load

    def counted() -> Any:
        nonlocal reads
        reads += 1
        return load()

    monkeypatch.setattr(budgets.snapshot, "_load", counted)
    monkeypatch.setattr(budgets.snapshot, "_clock", lambda: 1000.0)

    assert [await refused(key) for _ in range(100)] == [None] * 100
    assert reads == 1


@pytest.mark.usefixtures("clock")
async def test_a_key_that_has_just_got_a_budget_is_known_at_once() -> None:
    assert await refused(await made(tokens_per_day=1)) is None
    key = await made("new", tokens_per_day=1)
    await clients.for_requests().xadd(
        recorder.STREAM, {"d": orjson.dumps(use("a", key, input_tokens=1))}
    )

    assert await refused(key) is not None
    # One that has no budgets any more, as this process does not know yet, is let in.
    await ClientKey.objects.filter(pk=key.id).aupdate(tokens_per_day=None)
    budgets.snapshot.invalidate()
    assert await refused(key) is None


@pytest.mark.usefixtures("clock", "_looks_each_time")
async def test_without_the_database_the_last_figures_and_our_own_requests_count_for_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key, unknown = await made(tokens_per_day=1000), await made("late")
    await put(use("a", key, input_tokens=900))
    assert await refused(key) is None
    at = budgets.snapshot._at

    def away() -> Any:
        raise OperationalError("away")

    monkeypatch.setattr(budgets.snapshot, "_load", away)
    monkeypatch.setattr(budgets.snapshot, "_clock", lambda: at + DEAD)
    assert await refused(key) is None
    await Answer("b", key).tells(input_tokens=100).ends()
    assert await refused(key) is not None
    with pytest.raises(OperationalError):
        await budgets.check(Key(unknown.id, "late", None, budgets=key.budgets))
    monkeypatch.setattr(budgets.snapshot, "_clock", lambda: at + DEAD + 0.1)
    with pytest.raises(OperationalError):
        await budgets.check(key)


@pytest.mark.usefixtures("clock", "_looks_each_time")
async def test_while_redis_is_away_our_own_requests_count_and_not_for_ever(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "MOST_OURS", 5)
    key = await made(tokens_per_day=1000)
    await clients.close()
    url, settings.REDIS_URL = settings.REDIS_URL, "unix:///nowhere/s"

    Answer("running", key)
    for number in range(8):
        await Answer(f"r{number}", key).tells(input_tokens=250).ends(is_recorded=False)
    budgets.snapshot.invalidate()

    assert await refused(key) is not None
    assert list(budgets._ours[key.id]) == ["running", "r4", "r5", "r6", "r7"]
    settings.REDIS_URL = url


async def test_what_runs_is_not_asked_by_each_request() -> None:
    key, asked = await made(tokens_per_day=1000), 0

    def tell() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return use("a", key)

    budgets.begun(key, "a", tell)
    for _ in range(50):
        await budgets.check(key)

    assert asked < 10
