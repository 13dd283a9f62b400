"""Sums equal what a plain loop over the records gives, whatever happens between."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connections, transaction
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from tests.usage.records import AT, row
from usage import latency, periods, prices, pruning, recorder, reports, rollup
from usage.groupings import GROUPINGS, LATENCIES, SUMS
from usage.models import (
    DirtyPeriod,
    Horizon,
    LatencyPeriod,
    Price,
    RequestRecord,
    UsagePeriod,
)

MODELS = ("claude-opus-5", "claude-haiku-4-5", "glm-5", "")
COUNTS = st.one_of(st.none(), st.integers(0, 5_000_000))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(MODELS),
            "answered_by": st.sampled_from(("", "claude-sonnet-5")),
            "session": st.sampled_from(("", "s", "t")),
            "status": st.sampled_from((200, 404, 429, 529)),
            "ended": st.sampled_from(("complete", "refused", "client_gone", "timeout")),
            "verdict": st.sampled_from(("", "D01", "D19")),
            "is_partial": st.booleans(),
            "possible_double_spend": st.booleans(),
            "input_tokens": COUNTS,
            "output_tokens": COUNTS,
            "cache_read_tokens": COUNTS,
            "cache_write_1h_tokens": COUNTS,
            "bytes_sent": st.integers(0, 10**9),
            "after": st.floats(0, 7200),
            "first": st.one_of(st.none(), st.floats(0, 10)),
        }
    ),
    max_size=25,
)


def told() -> dict[str, Counter[Any]]:
    """Return all sums as {grouping: {facts and name of the sum: number}}."""
    found: dict[str, Counter[Any]] = {name: Counter() for name in GROUPINGS}
    for one in UsagePeriod.objects.all():
        facts = tuple(getattr(one, name) for name in GROUPINGS[one.grouping])
        for name in SUMS:
            found[one.grouping][one.period, facts, name] += getattr(one, name)
    return {name: +counts for name, counts in found.items()}


def reckoned() -> dict[str, Counter[Any]]:
    """Return the same from the records, by a plain loop."""
    found: dict[str, Counter[Any]] = {name: Counter() for name in GROUPINGS}
    for record in RequestRecord.objects.all():
        facts = {
            "account": record.account_id or 0,
            "key": record.key_id or 0,
            "model": record.answered_by or record.model,
        } | {
            name: getattr(record, name)
            for name in ("organization", "provider", "endpoint", "status", "ended", "verdict")
        }
        has_tokens = record.input_tokens is not None or record.output_tokens is not None
        hung_up = record.ended in ("client_gone", "revoked", "disabled")
        numbers = {name: getattr(record, name, None) or 0 for name in SUMS} | {
            "requests": 1,
            "successes": int(record.status < 400 and record.ended == "complete"),
            "errors": int((record.status >= 400 and not hung_up) or record.ended == "timeout"),
            "unpriced": int(has_tokens and record.cost is None),
            "partial": int(record.is_partial),
            "double_billed": int(record.possible_double_spend),
        }
        period = int(record.started_at.timestamp()) // 900
        for grouping, known in GROUPINGS.items():
            for name, number in numbers.items():
                found[grouping][period, tuple(facts[one] for one in known), name] += number
    return {name: +counts for name, counts in found.items()}


class AnyRecords(TestCase):
    """A class, as each example needs a transaction of its own."""

    @hypothesis_settings(max_examples=12, deadline=None)
    @given(st.lists(ROWS, min_size=1, max_size=3))
    def test_sums_equal_a_plain_loop_over_any_records_in_any_batches(self, batches: Any) -> None:
        for number, batch in enumerate(batches):
            recorder.write([row(f"{number}-{i}", **one) for i, one in enumerate(batch)])
            rollup.roll_up()

        assert told() == reckoned()
        assert not DirtyPeriod.objects.exists()
        rows = LatencyPeriod.objects.filter(measure="duration")
        whole = sum(getattr(one, f"b{n}") for one in rows for n in range(latency.BUCKETS))
        assert whole == len(LATENCIES) * RequestRecord.objects.count()


@pytest.mark.django_db
def test_a_redelivery_and_a_second_sum_change_nothing() -> None:
    rows = [row("a", input_tokens=10), row("b", input_tokens=20, after=1000)]
    recorder.write(rows)
    rollup.roll_up()
    before = told()

    recorder.write(rows)
    rollup.roll_up()
    rollup.roll_up()

    assert told() == before == reckoned()
    assert UsagePeriod.objects.filter(grouping="all").count() == 2


@pytest.mark.django_db
def test_a_worker_killed_on_the_way_leaves_the_mark_and_the_old_sums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder.write([row("a")])
    rollup.roll_up()
    recorder.write([row("b")])

    def die(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rollup, "_latency", die)
        with pytest.raises(KeyboardInterrupt), transaction.atomic():
            rollup.roll_up()
    assert UsagePeriod.objects.get(grouping="all").requests == 1
    assert rollup.roll_up() == 1

    assert told() == reckoned()


@pytest.mark.django_db(transaction=True)
def test_workers_that_sum_while_records_are_written_lose_and_double_nothing() -> None:
    over = threading.Event()

    def write(writer: int) -> None:
        for batch in range(8):
            rows = [row(f"{writer}-{batch}-{n}", after=n * 450.0, input_tokens=n) for n in range(4)]
            recorder.write(rows)

    def sum_up() -> None:
        while not over.is_set():
            rollup.roll_up()

    def run(call: Any, *args: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                call(*args)
            finally:
                connections.close_all()

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread

    summing = [run(sum_up) for _ in range(2)]
    for thread in [run(write, writer) for writer in range(2)]:
        thread.join()
    over.set()
    for thread in summing:
        thread.join()
    rollup.roll_up()

    assert RequestRecord.objects.count() == 64
    assert told() == reckoned()


@pytest.mark.django_db
def test_a_period_that_nobody_marked_is_not_summed() -> None:
    recorder.write([row("a")])

    assert [rollup.roll_up(), rollup.roll_up()] == [1, 0]
    assert not rollup.sum_up(periods.of(AT))


@pytest.mark.django_db
def test_new_prices_reach_the_sums() -> None:
    recorder.write([row("a", model="glm-5", input_tokens=1_000_000), row("b", after=1000)])
    rollup.roll_up()
    Price.objects.create(
        model="glm-5",
        valid_from=AT - timedelta(days=1),
        input=3,
        output=9,
        cache_read=0,
        cache_write_5m=0,
        cache_write_1h=0,
    )

    assert prices.reprice(AT - timedelta(days=1), AT + timedelta(days=1)) == 1
    assert rollup.roll_up() == 1

    assert UsagePeriod.objects.get(grouping="model", model="glm-5").cost == 3_000_000
    assert told() == reckoned()


@pytest.mark.django_db
def test_of_names_that_a_client_invents_only_so_many_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollup, "MOST_MODELS", 2)
    recorder.write([row(str(n), model=f"m{n % 3 if n < 6 else n}") for n in range(10)])
    rollup.roll_up()

    names = UsagePeriod.objects.filter(grouping="model").values_list("model", "requests")

    assert sum(requests for _, requests in names) == 10
    assert len(names) == 3
    assert "(others)" in dict(names)


@pytest.mark.django_db
def test_records_and_sums_end_by_their_age_and_never_before_they_are_summed() -> None:
    now = AT + timedelta(days=100)
    recorder.write([row("old"), row("new", after=99 * 86400.0)])

    pruning.prune(now)
    assert RequestRecord.objects.count() == 2
    rollup.roll_up()
    pruning.prune(now)

    assert [r.request_id for r in RequestRecord.objects.all()] == ["new"]
    assert UsagePeriod.objects.filter(grouping="all").count() == 2
    # What is beyond the horizon keeps its sums, whoever marks it.
    rollup.mark([AT])
    rollup.roll_up()
    assert UsagePeriod.objects.filter(grouping="all").count() == 2
    pruning.prune(AT + timedelta(days=731))
    assert UsagePeriod.objects.filter(grouping="all").count() == 1
    assert Horizon.objects.count() == 1


@pytest.mark.django_db
def test_a_period_that_cannot_be_summed_holds_up_no_other() -> None:
    recorder.write([row("a"), row("b"), row("older", after=-900.0)])
    RequestRecord.objects.exclude(request_id="older").update(cost=2**62)

    done = rollup.roll_up()

    assert done == 1
    assert UsagePeriod.objects.get(grouping="all").period == periods.of(AT) - 1
    assert DirtyPeriod.objects.get().period == periods.of(AT)


def test_zones_are_cut_where_their_offset_changes() -> None:
    berlin, since = ZoneInfo("Europe/Berlin"), datetime(2026, 1, 1, tzinfo=UTC)

    parts = list(
        periods.segments(periods.of(since), periods.of(since + timedelta(days=365)), berlin)
    )

    assert [part.offset for part in parts] == [4, 8, 4]
    assert [periods.start(part.first) for part in parts[1:]] == [
        datetime(2026, 3, 29, 1, tzinfo=UTC),
        datetime(2026, 10, 25, 1, tzinfo=UTC),
    ]


@pytest.mark.parametrize("name", ["Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"])
@pytest.mark.django_db
def test_a_day_is_a_day_of_the_zone_on_odd_offsets_and_changes_of_the_clock(name: str) -> None:
    zone = ZoneInfo(name)
    # Every quarter of an hour of a month in which clocks change.
    since = datetime(2026, 10, 20, tzinfo=UTC)
    moments = [since + timedelta(minutes=15 * n) for n in range(96 * 20)]
    UsagePeriod.objects.bulk_create(
        UsagePeriod(grouping="all", period=periods.of(moment), requests=1) for moment in moments
    )

    for group, form in (("day", "%Y-%m-%d"), ("month", "%Y-%m"), ("hour", "%Y-%m-%dT%H:00%z")):
        expected = Counter(moment.astimezone(zone).strftime(form) for moment in moments)
        asked = reports.Question("requests", group, since, since + timedelta(days=20), zone)
        rows = reports.report(asked).rows
        found = {_bare(row.label): row.figures["requests"] for row in rows}
        assert found == {_bare(label): number for label, number in expected.items()}


def _bare(label: str) -> str:
    return label[:16] + label[16:].replace(":", "")
