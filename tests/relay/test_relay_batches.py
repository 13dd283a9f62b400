"""Batches belong to the account that made them and to the key that may see them."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anthropic
import pytest
from django.db import DatabaseError
from django.utils import timezone

from accounts import pool
from accounts.models import Account
from relay import ownership, resources
from relay.bench import bench
from relay.models import Resource
from relay.ramp import ramp
from tests.relay.conftest import Relay
from tests.relay.raw import RawClient, RawUpstream
from tests.relay.things import ASK, BATCHES, asked, make_batch, other_key, upstream_ended
from usage import recorder

# Its first nine digits alone are a good one.
LONG_LIMIT = "limit=000001000" + "9" * 5000


@pytest.fixture
async def sdk(relay: Relay) -> AsyncIterator[anthropic.AsyncAnthropic]:
    for name in ("console", "second"):
        await relay.add_api_key(name)
    async with anthropic.AsyncAnthropic(
        base_url=relay.url, api_key=relay.key, max_retries=0
    ) as client:
        yield client


async def test_the_official_client_makes_a_batch_and_reads_its_results(
    sdk: anthropic.AsyncAnthropic,
) -> None:
    requests: Any = [{"custom_id": name, "params": ASK} for name in ("a", "b")]

    made = await sdk.messages.batches.create(requests=requests)
    batch = await sdk.messages.batches.retrieve(made.id)
    lines = [line async for line in await sdk.messages.batches.results(made.id)]
    listed = [one.id async for one in sdk.messages.batches.list()]
    deleted = await sdk.messages.batches.delete(made.id)

    assert (made.processing_status, batch.processing_status) == ("in_progress", "ended")
    assert [(line.custom_id, line.result.type) for line in lines] == [
        ("a", "succeeded"),
        ("b", "succeeded"),
    ]
    assert listed == [made.id] == [deleted.id]
    with pytest.raises(anthropic.NotFoundError):
        await sdk.messages.batches.retrieve(made.id)


async def test_the_official_client_cancels_a_batch(sdk: anthropic.AsyncAnthropic) -> None:
    requests: Any = [{"custom_id": "endless", "params": ASK}]
    made = await sdk.messages.batches.create(requests=requests)

    canceling = await sdk.messages.batches.cancel(made.id)

    assert canceling.processing_status == "canceling"


async def test_a_batch_stays_with_the_account_that_made_it(relay: Relay) -> None:
    await relay.link("ada", "grace", "linus")
    made = [await make_batch(relay) for _ in range(3)]

    for batch in made * 2:
        await relay.http.get(f"{BATCHES}/{batch['id']}", headers=relay.auth)

    makers = asked(relay, BATCHES, "POST")
    assert sorted(makers) == ["ada", "grace", "linus"]
    for maker, batch in zip(makers, made, strict=True):
        assert asked(relay, f"{BATCHES}/{batch['id']}") == [maker, maker]


async def test_a_foreign_key_gets_404_for_everything(relay: Relay) -> None:
    await relay.link("ada")
    made = await make_batch(relay)
    foreign = await other_key(relay)
    path = f"{BATCHES}/{made['id']}"
    relay.simulator.clear_requests()

    answers = [
        await relay.http.request(method, address, headers=foreign)
        for method, address in [
            ("GET", path),
            ("GET", f"{path}/results"),
            ("POST", f"{path}/cancel"),
            ("DELETE", path),
            ("GET", f"{BATCHES}?after_id={made['id']}"),
        ]
    ]
    listed = await relay.http.get(BATCHES, headers=foreign)

    for answer in answers:
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "not_found_error"
        assert answer.headers["x-should-retry"] == "false"
    assert listed.json() == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert relay.simulator.requests() == []


@pytest.mark.parametrize("thing", ["msgbatch_unknown", "..", "a%2fb", "x" * 200, "{id}"])
async def test_an_unknown_id_is_404_and_asks_nobody(relay: Relay, thing: str) -> None:
    await relay.link("ada")
    relay.simulator.clear_requests()

    client = await RawClient.request(relay.url, "GET", f"{BATCHES}/{thing}", relay.auth)
    head = await client.head()

    assert re.match(r"HTTP/1.1 40[04] ", head)
    assert relay.simulator.requests() == []


async def test_results_url_leads_to_the_relay_and_every_other_byte_stays(
    relay: Relay, settings: Any
) -> None:
    await relay.link("ada")
    made = await make_batch(relay)
    odd = (
        b'{ "id": "%b",\n "x": "\\u00e9 {}", "results_url" :  "https:\\/\\/api.anthropic.com/v1/r",'
        b' "n": 1e3 }'
    ) % made["id"].encode()
    ok = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    async with RawUpstream([ok % len(odd) + odd]) as upstream:
        settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_base_url": upstream.url})
        answer = await relay.http.get(f"{BATCHES}/{made['id']}", headers=relay.auth)

    own = f"{relay.url}{BATCHES}/{made['id']}/results".encode()
    assert answer.content == odd.replace(b"https:\\/\\/api.anthropic.com/v1/r", own)


async def test_results_url_is_that_of_public_url_when_it_is_set(
    relay: Relay, settings: Any
) -> None:
    await relay.link("ada")
    made = await make_batch(relay)
    public = {"public_url": "https://relay.example"}
    settings.CONFIG = settings.CONFIG.model_copy(update=public)

    one = await relay.http.get(f"{BATCHES}/{made['id']}", headers=relay.auth)
    several = await relay.http.get(BATCHES, headers=relay.auth)

    url = f"https://relay.example{BATCHES}/{made['id']}/results"
    assert one.json()["results_url"] == several.json()["data"][0]["results_url"] == url


async def test_a_list_merges_the_accounts_newest_first_and_is_paged(relay: Relay) -> None:
    await relay.link("ada", "grace", "linus")
    foreign = await other_key(relay)
    made = []
    for _ in range(7):
        made.append((await make_batch(relay))["id"])
        await make_batch(relay, headers=foreign)

    async def pages(query: str) -> Any:
        return (await relay.http.get(f"{BATCHES}?{query}", headers=relay.auth)).json()

    first = await pages("limit=3")
    second = await pages(f"limit=3&after_id={first['last_id']}")
    third = await pages(f"limit=3&after_id={second['last_id']}")
    back = await pages(f"limit=3&before_id={third['first_id']}")

    ids = [[batch["id"] for batch in page["data"]] for page in (first, second, third, back)]
    newest = made[::-1]
    assert ids == [newest[:3], newest[3:6], newest[6:], newest[3:6]]
    assert [page["has_more"] for page in (first, second, third, back)] == [True, True, False, True]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=\u0663", LONG_LIMIT])
async def test_a_limit_that_the_api_would_not_take_is_refused(relay: Relay, query: str) -> None:
    await relay.link("ada")

    answer = await relay.http.get(f"{BATCHES}?{query}", headers=relay.auth)

    assert answer.status_code == 400


async def test_an_account_that_cannot_be_asked_is_left_out_of_the_list(relay: Relay) -> None:
    await relay.link("ada", "grace")
    made = [(await make_batch(relay))["id"] for _ in range(2)]
    first = asked(relay, BATCHES, "POST")[0]
    relay.simulator.script({"account": f"{first}@example.com"}, times=None, status=500)

    listed = await relay.http.get(BATCHES, headers=relay.auth)

    assert [batch["id"] for batch in listed.json()["data"]] == made[1:]


async def test_when_no_account_can_be_asked_a_list_is_no_empty_one(relay: Relay) -> None:
    await relay.link("ada")
    await make_batch(relay)
    relay.simulator.script({}, times=None, status=500)

    listed = await relay.http.get(BATCHES, headers=relay.auth)

    assert listed.status_code == 503


async def test_a_limited_account_still_serves_what_it_keeps_and_an_invalid_one_does_not(
    relay: Relay,
) -> None:
    await relay.link("ada")
    made = await make_batch(relay)
    path = f"{BATCHES}/{made['id']}"
    later = timezone.now() + timedelta(hours=1)

    await Account.objects.aupdate(status="rate_limited", limited_until=later)
    limited = await relay.http.get(path, headers=relay.auth)
    await Account.objects.aupdate(status="invalid")
    pool.snapshot.invalidate()
    invalid = await relay.http.get(path, headers=relay.auth)

    assert (limited.status_code, invalid.status_code) == (200, 503)


async def test_a_refused_token_is_renewed_once_for_what_has_no_body(relay: Relay) -> None:
    await relay.link("ada")
    made = await make_batch(relay)
    relay.simulator.expire_access("ada@example.com")

    answer = await relay.http.get(f"{BATCHES}/{made['id']}", headers=relay.auth)

    assert answer.status_code == 200
    assert len(asked(relay, f"{BATCHES}/{made['id']}")) == 2


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 529}, {"reset": True}])
async def test_a_creation_is_never_sent_twice(relay: Relay, fault: dict[str, Any]) -> None:
    await relay.link("ada", "grace")
    relay.simulator.script({"path": BATCHES}, times=None, **fault)

    answer = await relay.http.post(BATCHES, json={"requests": [1]}, headers=relay.auth)

    assert answer.status_code >= 500
    assert len(asked(relay, BATCHES, "POST")) == 1


async def test_after_a_refused_token_the_client_may_try_again_with_a_new_one(
    relay: Relay,
) -> None:
    await relay.link("ada")
    relay.simulator.expire_access("ada@example.com")

    refused = await relay.http.post(BATCHES, json={"requests": [1]}, headers=relay.auth)
    sent = len(asked(relay, BATCHES, "POST"))
    again = await relay.http.post(BATCHES, json={"requests": [1]}, headers=relay.auth)

    assert refused.status_code == 503
    assert refused.headers["x-relay-error"] == "pool_unavailable"
    assert sent == 1
    assert again.status_code == 200


async def test_a_spent_account_makes_the_client_come_back_for_another_one(relay: Relay) -> None:
    await relay.link("ada", "grace")
    window = {"anthropic-ratelimit-unified-5h-status": "rejected"}
    relay.simulator.script({"path": BATCHES}, status=429, headers=window)

    spent = await relay.http.post(BATCHES, json={"requests": [1]}, headers=relay.auth)
    again = await relay.http.post(BATCHES, json={"requests": [1]}, headers=relay.auth)

    assert (spent.status_code, spent.headers["retry-after"]) == (503, "1")
    assert again.status_code == 200
    assert len(set(asked(relay, BATCHES, "POST"))) == 2


async def test_what_cannot_be_bound_is_told_and_logged(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise DatabaseError

    await relay.link("ada")
    monkeypatch.setattr(ownership, "bind", fail)

    answer = await relay.http.post(BATCHES, json={"requests": [1]}, headers=relay.auth)

    assert answer.status_code == 503
    assert answer.headers["x-should-retry"] == "false"
    assert re.search(
        r"bind batch msgbatch_\w+ of account:\d+: DatabaseError; orphaned", caplog.text
    )


async def test_a_batch_is_bound_even_if_the_client_hangs_up_meanwhile(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind = ownership.bind

    def bind_slowly(*args: Any) -> None:
        time.sleep(0.5)
        bind(*args)

    await relay.link("ada")
    monkeypatch.setattr(ownership, "bind", bind_slowly)
    body = json.dumps({"requests": [{"custom_id": "a", "params": ASK}]}).encode()
    client = await RawClient.post(relay.url, BATCHES, relay.auth, body)
    await upstream_ended(relay, BATCHES)

    client.hang_up()
    await relay.running.idle()
    await resources.settled()

    assert await Resource.objects.acount() == 1


async def test_a_list_that_the_upstream_refuses_as_the_clients_fault_says_so(
    relay: Relay,
) -> None:
    await relay.link("ada")
    await make_batch(relay)
    error = {"type": "invalid_request_error", "message": "no such beta"}
    relay.simulator.script({"path": BATCHES}, status=400, body={"type": "error", "error": error})

    listed = await relay.http.get(BATCHES, headers=relay.auth)

    assert (listed.status_code, listed.json()["error"]) == (400, error)


async def test_a_large_batch_is_passed_through(relay: Relay) -> None:
    await relay.link("ada")
    filler = "x" * (33 * 1024 * 1024)
    body = json.dumps({"requests": [{"custom_id": "a", "params": ASK | {"filler": filler}}]})

    answer = await relay.http.post(BATCHES, content=body, headers=relay.auth, timeout=60)

    assert answer.status_code == 200
    assert relay.simulator.requests(path=BATCHES)[0]["body_bytes"] == len(body)


async def test_requests_for_batches_are_recorded(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, Any]] = []
    monkeypatch.setattr(recorder, "append", rows.append)
    await relay.link("ada")

    made = await make_batch(relay)
    await relay.http.get(f"{BATCHES}/{made['id']}", headers=relay.auth)
    await relay.http.get(f"{BATCHES}/unknown", headers=relay.auth)
    await relay.running.idle()

    account = relay.accounts["ada"].pk
    assert [(row["endpoint"], row["status"], row["ended"], row["account"]) for row in rows] == [
        (BATCHES, 200, "complete", account),
        (f"{BATCHES}/{{id}}", 200, "complete", account),
        (f"{BATCHES}/{{id}}", 404, "refused", None),
    ]


async def test_a_deleted_batch_leaves_a_tombstone(relay: Relay) -> None:
    await relay.link("ada")
    made = await make_batch(relay)
    await relay.http.get(f"{BATCHES}/{made['id']}", headers=relay.auth)

    await relay.http.delete(f"{BATCHES}/{made['id']}", headers=relay.auth)

    row = await Resource.objects.aget(upstream_id=made["id"])
    assert row.deleted_at is not None


async def test_a_deletion_whose_client_hangs_up_leaves_nothing_in_flight(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = threading.Event()

    def forget_slowly(*_: Any) -> None:
        began.set()
        time.sleep(0.5)

    await relay.link("ada")
    path = f"{BATCHES}/{(await make_batch(relay))['id']}"
    await relay.http.get(path, headers=relay.auth)
    monkeypatch.setattr(ownership, "forget", forget_slowly)
    client = await RawClient.request(relay.url, "DELETE", path, relay.auth)
    while not began.is_set():
        await asyncio.sleep(0.01)

    client.hang_up()
    await relay.running.idle()

    assert ramp.in_flight(relay.accounts["ada"].pk) == 0


async def test_an_account_that_lists_a_nameless_thing_is_left_out(relay: Relay) -> None:
    await relay.link("ada", "grace")
    made = [(await make_batch(relay))["id"] for _ in range(2)]
    first = asked(relay, BATCHES, "POST")[0]
    match = {"account": f"{first}@example.com"}
    relay.simulator.script(match, times=None, body={"data": [{"type": "message_batch"}]})

    listed = await relay.http.get(BATCHES, headers=relay.auth)

    assert listed.status_code == 200, listed.text
    assert [batch["id"] for batch in listed.json()["data"]] == made[1:]


async def test_what_only_an_unusable_account_keeps_is_no_empty_list(relay: Relay) -> None:
    await relay.link("ada", "grace")
    await make_batch(relay)
    first = asked(relay, BATCHES, "POST")[0]
    await Account.objects.filter(pk=relay.accounts[first].pk).aupdate(status="invalid")
    pool.snapshot.invalidate()

    listed = await relay.http.get(BATCHES, headers=relay.auth)
    others = await relay.http.get(BATCHES, headers=await other_key(relay))

    assert (listed.status_code, others.status_code) == (503, 200)


async def test_reading_a_batch_proves_nothing_about_messages(relay: Relay) -> None:
    (ada,) = await relay.link("ada")
    made = await make_batch(relay)
    bench.penalise(ada.pk, timezone.now())

    await relay.http.get(f"{BATCHES}/{made['id']}", headers=relay.auth)
    await relay.running.idle()

    assert bench.is_penalised(ada.pk, timezone.now())
