"""With a pass-through key the client's own login goes upstream, and nothing of it stays here."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest
from asgiref.sync import sync_to_async

from accounts import facts
from accounts.models import Account
from relay import breaker
from relay.models import Resource
from sessions_limit import issuing, revoking
from tests.relay.conftest import BETAS, CLAUDE_CODE, HOLDER, ODD_BODY, Holder
from tests.relay.raw import RawClient, RawUpstream
from tests.relay.things import ASK, BATCHES, FILES

STREAMED = ODD_BODY.replace(b'"odd"', b'"stream":true,"odd"')


def _sent(request: Mapping[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in request["headers"]}


async def _stream(holder: Holder, **headers: str) -> RawClient:
    """Return a client that has read the beginning of a stream."""
    names = holder.headers | headers
    client = await RawClient.post(holder.relay.url, "/v1/messages", names, STREAMED)
    await client.head()
    await client.chunk()
    return client


async def _rest(client: RawClient) -> bool:
    """Read on; tell whether the answer ended as HTTP says it must."""
    try:
        while await client.chunk():
            pass
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return False
    return True


async def test_a_request_arrives_as_it_was_sent_with_its_own_login(holder: Holder) -> None:
    answer = await holder.ask()

    (request,) = holder.relay.simulator.requests()
    assert answer.status_code == 200
    assert (request["account"], request["violations"]) == (HOLDER, [])
    assert request["target"] == "/v1/messages?beta=true"
    assert request["body_sha256"] == hashlib.sha256(ODD_BODY).hexdigest()
    sent = _sent(request)
    assert sent["authorization"] == f"Bearer {holder.token}"
    assert sent["anthropic-beta"] == BETAS
    assert sent["user-agent"] == CLAUDE_CODE["user-agent"]
    assert sent["accept-encoding"] == "identity"
    assert "x-relay-key" not in sent
    assert holder.relay.simulator.seen(holder.key) == 0


async def test_its_own_limits_are_shown_to_the_holder(holder: Holder) -> None:
    answer = await holder.ask()

    assert answer.headers["anthropic-ratelimit-unified-status"] == "allowed"
    assert answer.headers["anthropic-ratelimit-unified-5h-utilization"] == "0.05"
    assert "set-cookie" not in answer.headers


async def test_an_api_key_of_ones_own_passes_too(holder: Holder) -> None:
    secret = holder.relay.simulator.api_key("mine")
    headers = holder.headers | {"x-api-key": secret}
    del headers["authorization"]

    answer = await holder.relay.http.post("/v1/messages", content=ODD_BODY, headers=headers)

    (request,) = holder.relay.simulator.requests()
    assert answer.status_code == 200
    assert (request["account"], _sent(request)["x-api-key"]) == ("mine", secret)
    assert answer.headers["anthropic-ratelimit-requests-limit"] == "4000"


async def test_refusals_come_as_they_are_and_cost_the_pool_nothing(holder: Holder) -> None:
    told = {"type": "error", "error": {"type": "odd", "message": "This organization is disabled."}}
    own = {
        "retry-after": "3600",
        "x-should-retry": "false",
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-5h-status": "rejected",
        "anthropic-ratelimit-unified-5h-reset": "4000000000",
    }
    # So many that the relay would spare an upstream of which this was true for everybody.
    statuses = [400, 401, 403, 429, 500, 529] * 2
    for status in statuses:
        holder.relay.simulator.script(status=status, headers=own, body=told)

    answers = [await holder.ask() for _ in statuses]
    pooled = await holder.relay.ask()

    assert [answer.status_code for answer in answers] == statuses
    for answer in answers:
        assert json.loads(answer.content) == told
        assert {name: answer.headers.get(name) for name in own} == own
        assert "x-relay-error" not in answer.headers
    asked = [request["account"] for request in holder.relay.simulator.requests()]
    assert asked == [HOLDER] * len(statuses) + ["ada@example.com"]
    assert pooled.status_code == 200
    assert not breaker.host.is_closed()
    await facts.facts.flushed()
    await sync_to_async(facts.drain)()
    ada = await Account.objects.aget()
    assert (ada.status, ada.reason, ada.limited_until) == ("active", "", None)


async def test_an_expired_login_is_told_so_that_its_client_renews_it(holder: Holder) -> None:
    holder.relay.simulator.expire_access(HOLDER)

    answer = await holder.ask()

    assert answer.status_code == 401
    assert "OAuth token has expired" in answer.json()["error"]["message"]
    assert answer.headers["request-id"] == answer.json()["request_id"]
    assert holder.relay.simulator.token_ledger()["refreshes"] == 0


async def test_a_stream_is_recorded_as_passed_through(holder: Holder) -> None:
    answer = await holder.ask(STREAMED, **{"x-claude-code-session-id": "mine"})
    await holder.relay.ask()

    mine, pooled = await holder.records()
    assert b"event: message_stop" in answer.content
    assert (mine.provider, mine.account_id, mine.organization) == ("passthrough", None, "")
    assert (mine.key_id, mine.session, mine.stream) == (holder.row.pk, "mine", True)
    assert (mine.attempts, mine.verdict, mine.ended) == (1, "D37", "complete")
    assert mine.trail["passes_through"] is True
    assert mine.trail["attempts"] == [{"account": None, "row": "D37", "status": 200, "waited": 0.0}]
    assert mine.input_tokens
    assert mine.output_tokens
    assert mine.cost
    assert mine.upstream_id == answer.headers["request-id"]
    assert (pooled.provider, "passes_through" in pooled.trail) == ("oauth", False)


async def test_a_stream_that_breaks_off_never_looks_whole(holder: Holder) -> None:
    holder.relay.simulator.script(cut_after=900)

    with pytest.raises(httpx2.RemoteProtocolError):
        await holder.ask(STREAMED)

    (record,) = await holder.records()
    assert (record.ended, record.is_partial) == ("upstream_cut", True)


async def test_a_stream_ends_with_its_key_and_with_its_client(holder: Holder) -> None:
    holder.relay.simulator.script(times=None, events=60, pace=0.05)
    revoked, gone = await _stream(holder), await _stream(holder)

    gone.hang_up()
    await asyncio.sleep(0.1)
    await sync_to_async(issuing.revoke)(holder.row, by="test")
    is_whole = await _rest(revoked)

    assert not is_whole
    ended = sorted(record.ended for record in await holder.records())
    assert ended == ["client_gone", "revoked"]
    upstream = {request["ended"] for request in holder.relay.simulator.requests()}
    assert upstream == {"client_gone"}


async def test_batches_files_and_models_are_those_of_the_login(holder: Holder) -> None:
    http, simulator = holder.relay.http, holder.relay.simulator
    form = {name: value for name, value in holder.headers.items() if name != "content-type"}
    data = bytes(range(256)) * 300

    file = (await http.post(FILES, files={"file": ("a.bin", data)}, headers=form)).json()
    content = await holder.get(f"{FILES}/{file['id']}/content")
    batch = (
        await http.post(
            BATCHES, json={"requests": [{"custom_id": "a", "params": ASK}]}, headers=holder.headers
        )
    ).json()
    shown = (await holder.get(f"{BATCHES}/{batch['id']}")).json()
    listed = (await holder.get(BATCHES)).json()
    results = await http.get(shown["results_url"], headers=holder.headers)
    models = await holder.get("/v1/models?limit=1000")
    model = await holder.get(f"/v1/models/{models.json()['data'][0]['id']}")
    counted = await http.post("/v1/messages/count_tokens", content=ODD_BODY, headers=holder.headers)
    gone = await http.delete(f"{FILES}/{file['id']}", headers=holder.headers)

    assert simulator.requests()[0]["account"] == HOLDER
    assert {request["account"] for request in simulator.requests()} == {HOLDER}
    assert content.content == data
    # Its client follows this address with all of its headers.
    assert shown["results_url"] == f"{holder.relay.url}{BATCHES}/{batch['id']}/results"
    assert listed["data"][0]["results_url"] == shown["results_url"]
    assert json.loads(results.content)["custom_id"] == "a"
    assert (model.status_code, counted.status_code, gone.status_code) == (200, 200, 200)
    assert not await Resource.objects.aexists()
    assert simulator.seen(holder.key) == 0


async def test_what_is_not_the_api_is_an_error_of_the_relay(holder: Holder, settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    page = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<a/>"
    away = b"HTTP/1.1 307 Away\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n"
    async with RawUpstream([None], [page], [away]) as upstream:
        answers = []
        for url in (upstream.url, upstream.url, upstream.url, nobody):
            settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_base_url": url})
            answers.append(await holder.ask())
            # Nothing of that says that the upstream is away; one more failure to connect does.
            assert breaker.host.is_closed() is (url == nobody)
            for _ in range(0 if url == nobody else 3):
                breaker.host.saw(accepted=False, connected=False)
        asked = len(upstream.requests)

    codes = [answer.headers.get("x-relay-error") for answer in answers]
    assert codes == ["upstream_protocol"] * 3 + ["upstream_connect"]
    assert {answer.status_code for answer in answers} == {502}
    # What may have been seen is not sent twice; what nobody can have seen is.
    assert asked == 3
    records = await holder.records()
    assert [record.attempts for record in records] == [1, 1, 1, 2]
    assert {record.provider for record in records} == {"passthrough"}


async def test_a_kept_connection_that_was_closed_is_replaced(holder: Holder, settings: Any) -> None:
    told = b'{"type":"message","model":"claude-opus-5-5","usage":{"input_tokens":1}}'
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(told)}\r\n\r\n"
    )
    async with RawUpstream([head.encode() + told, 0.3]) as upstream:
        settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_base_url": upstream.url})
        first = await holder.ask()
        second = await holder.ask()

    assert (first.content, second.content) == (told, told)
    records = await holder.records()
    assert [[one["row"] for one in record.trail["attempts"]] for record in records] == [
        ["D37"],
        ["D04", "D37"],
    ]


async def test_limits_and_revocations_hold_as_for_others(holder: Holder, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"session_limit": True})
    await sync_to_async(issuing.update)(holder.row, "test", max_sessions=1, max_in_flight=2)
    holder.relay.simulator.script(times=None, events=60, pace=0.05)
    mine = {"x-claude-code-session-id": "mine"}

    first = await _stream(holder, **mine)
    other = await holder.ask(**{"x-claude-code-session-id": "other"})
    second = await _stream(holder, **mine)
    third = await holder.ask(**mine)
    await sync_to_async(revoking.revoke_all)(by="test")
    whole = [await _rest(first), await _rest(second)]
    again = await holder.ask(**mine)

    refused = [(answer.status_code, answer.headers["x-relay-error"]) for answer in (other, third)]
    assert refused == [(429, "session_limit"), (429, "key_limit")]
    assert whole == [False, False]
    assert (again.status_code, again.headers["x-relay-error"]) == (403, "session_revoked")
    assert len(holder.relay.simulator.requests()) == 2


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        ({"x-relay-key": "POOLED", "authorization": "Bearer OWN"}, 403, "no pass-through"),
        ({"authorization": "Bearer PASSING"}, 403, "x-relay-key"),
        ({"x-api-key": "PASSING"}, 403, "x-relay-key"),
        ({"x-relay-key": "PASSING"}, 400, "login"),
        ({"x-relay-key": "PASSING", "authorization": "Bearer POOLED"}, 403, "own login"),
        ({"x-relay-key": "PASSING", "x-api-key": "PASSING"}, 403, "own login"),
        ({"x-relay-key": "PASSING", "authorization": "Bearer\tPASSING"}, 403, "own login"),
        ({"x-relay-key": "PASSING", "authorization": "Bearer PASSING x"}, 403, "own login"),
        ({"x-relay-key": "rk_unknown", "authorization": "Bearer OWN"}, 401, "relay key"),
    ],
)
async def test_keys_and_logins_that_do_not_belong_together_are_refused(
    holder: Holder, sent: dict[str, str], status: int, said: str
) -> None:
    names = {"POOLED": holder.relay.key, "PASSING": holder.key, "OWN": holder.token}
    for name, secret in names.items():
        sent = {header: value.replace(name, secret) for header, value in sent.items()}

    answer = await holder.relay.http.post(
        "/v1/messages", content=ODD_BODY, headers={"content-type": "application/json"} | sent
    )

    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert holder.relay.simulator.requests() == []
