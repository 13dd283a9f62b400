"""Each record is counted once, whoever writes it how often, under labels that have a bound."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections
from prometheus_client.parser import text_string_to_metric_families

from accounts.models import Account
from lib import counters, exposition
from lib.exposition import Histogram
from relay.models import ModelList
from tests.usage.records import AT, row
from usage import known_models, prometheus, recorder
from usage.models import Price, RequestRecord

Samples = dict[tuple[str, ...], float]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    counters.deltas.reset()
    known_models.reset()
    yield
    counters.deltas.reset()
    known_models.reset()


def _text(values: Samples) -> Samples:
    """Return what a scrape shows of these values: by name, and labels' values in their order."""
    text = exposition.render(table.family(values) for table in prometheus.METRICS).decode()
    return {
        (sample.name.removeprefix(exposition.PREFIX), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _shown() -> Samples:
    return _text(counters.deltas._added)


@pytest.mark.django_db
def test_a_record_is_counted_with_what_it_used() -> None:
    attempts = [
        {"account": 1, "row": "D05"},
        {"account": 1, "row": "D19"},
        {"account": 2, "row": "quota"},
        {"account": 3, "row": "D37"},
    ]
    used = {"input_tokens": 1000, "output_tokens": 200, "cache_read_tokens": 30}
    sent = {"bytes_received": 50, "bytes_sent": 600}

    recorder.write([row("a", trail={"attempts": attempts}, thinking_tokens=7, **used, **sent)])

    record = RequestRecord.objects.get()
    shown = _shown()
    assert record.cost
    for key, value in {
        ("requests_total", "complete", "claude-opus-5", "none", "2xx"): 1,
        ("tokens_total", "input", "claude-opus-5", "none"): 1000,
        ("tokens_total", "output", "claude-opus-5", "none"): 200,
        ("tokens_total", "cache_read", "claude-opus-5", "none"): 30,
        ("thinking_tokens_total", "claude-opus-5", "none"): 7,
        ("cost_micro_usd_total", "claude-opus-5", "none"): record.cost,
        ("attempts_total", "D37"): 1,
        ("attempts_total", "quota"): 1,
        ("limiter_refusals_total", "2"): 1,
        ("retries_total",): 1,
        ("failovers_total",): 2,
        ("body_bytes_total", "received"): 50,
        ("body_bytes_total", "sent"): 600,
        ("request_first_byte_seconds_bucket", "0.25", "claude-opus-5", "true"): 0,
        ("request_first_byte_seconds_bucket", "0.5", "claude-opus-5", "true"): 1,
        ("request_first_byte_seconds_bucket", "+Inf", "claude-opus-5", "true"): 1,
        ("request_duration_seconds_count", "claude-opus-5", "true"): 1,
        ("request_duration_seconds_sum", "claude-opus-5", "true"): 1.5,
    }.items():
        assert shown[key] == pytest.approx(value), key
    assert shown["possible_double_spends_total",] == 0


@pytest.mark.django_db
def test_what_a_client_paid_with_its_own_login_is_told_apart() -> None:
    attempts = [{"account": None, "row": "D04"}, {"account": None, "row": "D37"}]
    used = {"input_tokens": 1000, "output_tokens": 200}

    recorder.write([row("a", provider="passthrough", trail={"attempts": attempts}, **used)])

    record = RequestRecord.objects.get()
    shown = _shown()
    assert (record.provider, record.account_id) == ("passthrough", None)
    assert record.cost
    assert shown["requests_total", "complete", "claude-opus-5", "passthrough", "2xx"] == 1
    assert shown["cost_micro_usd_total", "claude-opus-5", "passthrough"] == record.cost
    assert (shown["retries_total",], shown.get(("failovers_total",), 0)) == (1, 0)


@pytest.mark.django_db
def test_a_batch_that_comes_again_is_not_counted_again() -> None:
    recorder.write([row("a", session="s"), row("b", session="s")])
    recorder.write([row("a", session="s"), row("b", session="s")])
    recorder.write([row("b", after=2000), row("c", after=2000), row("c", after=2000)])

    assert counters.deltas._added["requests", "none", "claude-opus-5", "complete", "2xx"] == 3
    assert counters.deltas._seen == {"sessions": {"None:s"}}
    assert RequestRecord.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_two_workers_write_at_once_is_counted_once() -> None:
    rows = [row(f"r{number}", after=number) for number in range(50)]
    start, failed = threading.Barrier(4), []

    def write() -> None:
        try:
            start.wait()
            recorder.write(rows)
        except Exception as error:
            failed.append(error)
        finally:
            connections.close_all()

    workers = [threading.Thread(target=write) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert not failed
    assert RequestRecord.objects.count() == 50
    assert counters.deltas._added["requests", "none", "claude-opus-5", "complete", "2xx"] == 50


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("claude-opus-5", "claude-opus-5"),
        ("glm-5", "glm-5"),
        ("claude-opus-5-20261101", "claude-opus-5"),
        ("", ""),
        ("claude-opus-5-20261101-20261101", "other"),
        ("claude-opus-5x", "other"),
        ('"}\n# HELP', "other"),
    ],
)
def test_only_names_of_known_models_become_labels(model: str, label: str) -> None:
    assert known_models.label(model, {"claude-opus-5", "glm-5"}) == label


@pytest.mark.django_db
def test_a_model_is_known_if_an_account_has_it_or_a_price_is_for_it() -> None:
    account = Account.objects.create(name="a", kind="compatible", model_map={"mapped": "there"})
    ModelList.objects.create(account=account, data=[{"id": "listed"}], fetched_at=AT)
    Price.objects.create(model="priced", valid_from=AT, **_price())

    names = known_models.known()

    assert {"mapped", "listed", "priced", "claude-opus-5"} <= names
    assert "there" not in names


@pytest.mark.django_db
def test_clients_that_make_up_models_make_no_series() -> None:
    recorder.write([row(f"r{n}", model=f"model-{n}", status=404) for n in range(40)])

    series = [key for key in counters.deltas._added if key[0] == "requests"]
    assert series == [("requests", "none", "other", "complete", "4xx")]


def test_what_was_counted_with_other_bounds_or_labels_spoils_nothing() -> None:
    histogram = Histogram("h", "Help.", ("model",))
    values = {
        ("h_bucket", "m", "0.3"): 2.0,
        ("h_bucket", "m", "0.5"): 1.0,
        ("h_bucket", "m", "+Inf"): 1.0,
        ("h_bucket", "m", "more", "0.5"): 9.0,
        ("h_sum", "m"): 4.5,
    }

    samples = {tuple(s.labels.values()): s.value for s in histogram.family(values).samples}

    assert samples["m", "0.25"] == 0
    assert samples["m", "0.5"] == 3
    assert samples["m", "+Inf"] == 4


def _price() -> dict[str, Any]:
    names = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    return dict.fromkeys(names, 1)
