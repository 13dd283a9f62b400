"""Only a valid relay key opens the relay, and it stays on the client's side."""

from __future__ import annotations

from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from sessions_limit import issuing, keys
from sessions_limit.keytext import hash_of
from sessions_limit.models import ClientKey
from tests.relay.conftest import Relay

ASK = {"model": "claude-opus-5-5", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}


async def test_every_bad_key_gets_the_same_answer_that_ends_retries(relay: Relay) -> None:
    await relay.link("ada")
    row, revoked = await sync_to_async(keys.create)(name="old", by="test")
    await sync_to_async(keys.revoke)(row, by="test")
    _, expired = await sync_to_async(keys.create)("late", "test", timezone.now())
    row, replaced = await sync_to_async(keys.create)(name="rotated", by="test")
    await sync_to_async(issuing.rotate)(row, by="test", overlap=timedelta(0))
    row, disabled = await sync_to_async(keys.create)(name="off", by="test")
    await sync_to_async(issuing.disable)(row, by="test")

    answers = [
        await relay.http.post("/v1/messages", json=ASK, headers=headers)
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Basic cms6cms="},
            {"authorization": f"Bearer rk_{'x' * 43}"},
            {"authorization": f"Bearer {revoked}"},
            {"x-api-key": expired},
            {"x-api-key": replaced},
            {"x-api-key": disabled},
            {"x-api-key": "rk_" + "y" * 5000},
            {"x-api-key": "rk_" + "' OR '1'='1' --".ljust(43, "-")},
            {b"x-api-key": b"rk_" + "\u0661".encode() * 21 + b"x"},
        )
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["x-should-retry"] for answer in answers} == {"false"}
    bodies = [answer.json() for answer in answers]
    assert all(body.pop("request_id").startswith("rly_") for body in bodies)
    assert all(body == bodies[0] for body in bodies)
    assert bodies[0]["error"]["type"] == "authentication_error"
    assert relay.served() == []


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
async def test_a_key_is_taken_from_either_header(relay: Relay, name: str) -> None:
    await relay.link("ada")
    value = f"Bearer {relay.key}" if name == "authorization" else relay.key

    answer = await relay.http.post("/v1/messages", json=ASK, headers={name: value})

    assert answer.status_code == 200


async def test_the_same_key_in_both_headers_is_fine_and_two_different_ones_are_not(
    relay: Relay,
) -> None:
    await relay.link("ada")
    bearer = {"authorization": f"Bearer {relay.key}"}

    same = await relay.http.post(
        "/v1/messages", json=ASK, headers=bearer | {"x-api-key": relay.key}
    )
    different = await relay.http.post("/v1/messages", json=ASK, headers=bearer | {"x-api-key": "z"})

    assert same.status_code == 200
    assert different.status_code == 400
    assert different.headers["x-relay-error"] == "bad_request"


async def test_a_key_works_the_moment_it_was_made_and_stops_the_moment_it_is_revoked(
    relay: Relay,
) -> None:
    await relay.link("ada")
    await relay.ask()

    async def statuses(*texts: str) -> list[int]:
        return [
            (await relay.http.post("/v1/messages", json=ASK, headers={"x-api-key": t})).status_code
            for t in texts
        ]

    row, fresh = await sync_to_async(keys.create)(name="fresh", by="test")
    made = await statuses(fresh)
    newer = await sync_to_async(issuing.rotate)(row, by="test")
    rotated = await statuses(fresh, newer)
    await sync_to_async(keys.revoke)(row, by="test")
    revoked = await statuses(fresh, newer)

    assert (made, rotated, revoked) == ([200], [200, 200], [401, 401])


async def test_a_key_created_behind_the_process_s_back_works_at_once(relay: Relay) -> None:
    await relay.link("ada")
    await relay.ask()
    text = keys.PREFIX + "b" * 43

    await ClientKey.objects.acreate(name="other host", hash=hash_of(text), created_by="test")
    answer = await relay.http.post("/v1/messages", json=ASK, headers={"x-api-key": text})

    assert answer.status_code == 200


async def test_the_clients_key_never_goes_upstream_and_the_accounts_token_never_comes_back(
    relay: Relay,
) -> None:
    await relay.link("ada")
    await relay.add_api_key("console")

    answers = [await relay.ask(session=f"s{i}", headers={"x-api-key": relay.key}) for i in range(4)]

    assert relay.simulator.seen(relay.key) == 0
    assert all(r["violations"] == [] for r in relay.simulator.requests(path="/v1/messages"))
    shown = "".join(str(answer.headers) + answer.text for answer in answers)
    assert "sk-ant-" not in shown


async def test_a_key_is_kept_only_as_a_keyed_hash(relay: Relay) -> None:
    row = await ClientKey.objects.aget(name="test")

    assert relay.key not in str(vars(row))
    assert row.hint == relay.key[-4:]
    assert len(row.hash) == 64
