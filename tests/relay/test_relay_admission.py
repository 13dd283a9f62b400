"""The order at the door: what a client is refused for, when, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from lib import bus
from lib import redis as clients
from lib.redis import for_jobs
from relay import request
from relay.errors import RelayError
from sessions_limit import bans, keys, limiter, presence, sessions, sightings, sticky, visits
from sessions_limit.models import Revocation
from tests.relay.conftest import CLAUDE_CODE, Relay
from tests.relay.raw import RawClient
from usage import recorder

ID = "0c5a6c1e-5f0e-4d6e-9a53-2f8f2b8d6a11"
MODEL = "claude-opus-5-5"
ASK = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
async def pool(relay: Relay, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Relay:
    """A relay with two accounts and limits."""
    # A busy test machine is not a Redis that is away.
    monkeypatch.setattr(clients, "REQUEST_TIMEOUT", 5.0)
    configure(settings, session_limit=True)
    await relay.link("ada", "grace")
    relay.simulator.clear_requests()
    return relay


def configure(settings: Any, **changes: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update=changes)


async def begin(relay: Relay, session: str) -> RawClient:
    """Send a head, and nothing of the body that it announces."""
    headers = CLAUDE_CODE | relay.auth
    headers |= {"x-claude-code-session-id": session, "content-length": "100"}
    lines = ["POST /v1/messages HTTP/1.1", f"host: {relay.url.removeprefix('http://')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    client = await RawClient.request(relay.url, "HEAD", "/", {})
    await client.head()
    client.writer.write("\r\n".join([*lines, "", ""]).encode())
    return client


async def head_only(relay: Relay, session: str) -> str:
    """Do that, and return the answer's head."""
    client = await begin(relay, session)
    try:
        return await asyncio.wait_for(client.head(), 5)
    finally:
        client.hang_up()


async def revoke(session: str) -> None:
    until = timezone.now() + timedelta(seconds=60)
    await Revocation.objects.acreate(name=session, until=until, by="test", target="session")
    await sync_to_async(bus.changed)(bans.BANS)
    bans.snapshot.invalidate()


async def client_of(relay: Relay) -> str:
    """Return the client that the relay's key is."""
    key = await keys.authenticate(relay.key)
    assert key is not None
    return f"key:{key.id}"


async def living() -> list[str]:
    """Return the ids of the sessions that live."""
    names = await asyncio.to_thread(limiter.living)
    return sorted(name.rpartition("/")[2] for name in names)


async def test_what_is_refused_is_refused_before_its_body_comes(pool: Relay, settings: Any) -> None:
    client = await client_of(pool)
    assert (await pool.ask(session="one")).status_code == 200
    configure(settings, session_max_concurrent=1)
    await revoke(f"{client}/gone")

    revoked = await head_only(pool, "gone")
    full = await head_only(pool, "two")
    configure(settings, client_max_in_flight=0)
    busy = await head_only(pool, "one")
    still_revoked = await head_only(pool, "gone")

    assert " 403 " in revoked
    assert "x-relay-error: session_revoked" in revoked
    assert "x-should-retry: false" in revoked
    assert " 429 " in full
    assert "x-relay-error: session_limit" in full
    assert "x-should-retry: false" in full
    wait = next(line for line in full.split("\r\n") if line.startswith("retry-after: "))
    assert 295 <= int(wait.removeprefix("retry-after: ")) <= 300
    assert " 429 " in busy
    assert "x-relay-error: key_limit" in busy
    assert "retry-after: 1\r\n" in busy
    assert "session_revoked" in still_revoked
    # No account was asked, or has lost a turn.
    assert pool.served() == ["ada"]
    assert await clients.for_requests().get(limiter.TURNS) == "1"
    await pool.running.idle()
    assert await living() == ["one"]
    assert not visits.here


async def test_a_client_is_told_how_many_sessions_it_may_have(pool: Relay, settings: Any) -> None:
    configure(settings, session_idle_seconds=40)
    for session in ("one", "two", "three"):
        assert (await pool.ask(session=session)).status_code == 200

    refused = await pool.ask(session="four")

    assert refused.status_code == 429
    assert refused.headers["x-relay-error"] == "session_limit"
    assert 38 <= int(refused.headers["retry-after"]) <= 40
    error = refused.json()["error"]
    assert error["type"] == "rate_limit_error"
    assert "3 sessions at a time" in error["message"]
    assert len(pool.served()) == 3
    await pool.running.idle()
    await recorder.appender.flushed()
    rows: list[Any] = await clients.for_requests().xrange(recorder.STREAM)
    told = [json.loads(fields["d"]) for _, fields in rows]
    assert [row["ended"] for row in told] == ["complete"] * 3 + ["refused"]


async def test_sub_agents_are_one_session_and_who_names_none_share_one(
    pool: Relay, settings: Any
) -> None:
    configure(settings, session_max_concurrent=2)

    agents = await asyncio.gather(*(pool.ask(session="one") for _ in range(25)))
    of_the_session = set(pool.served())
    pool.simulator.clear_requests()
    nameless = [await pool.ask() for _ in range(4)]
    other = await pool.ask(session="two")

    assert {answer.status_code for answer in (*agents, *nameless)} == {200}
    assert len(of_the_session) == 1
    assert sorted(pool.served()) == ["ada", "ada", "grace", "grace"]
    assert other.headers["x-relay-error"] == "session_limit"
    assert await living() == ["default", "one"]


async def test_counting_tokens_opens_no_session_and_is_under_way_all_the_same(
    pool: Relay, settings: Any
) -> None:
    configure(settings, session_max_concurrent=0)
    headers = CLAUDE_CODE | pool.auth | {"x-claude-code-session-id": "one"}
    count = "/v1/messages/count_tokens"

    counted = await pool.http.post(count, json=ASK, headers=headers)
    refused = await pool.ask(session="one")
    configure(settings, client_max_in_flight=0)
    busy = await pool.http.post(count, json=ASK, headers=headers)

    assert counted.status_code == 200
    assert refused.headers["x-relay-error"] == "session_limit"
    assert busy.headers["x-relay-error"] == "key_limit"
    assert await living() == []
    await pool.running.idle()
    assert not sessions.leases


async def test_caps_of_requests_under_way_are_exact(pool: Relay, settings: Any) -> None:
    configure(settings, client_max_in_flight=6, session_max_in_flight=4)
    _, own = await sync_to_async(keys.create)(name="own", by="test", max_in_flight=3)
    pool.simulator.script({"path": "/v1/messages"}, times=None, events=30, pace=0.02)

    async def ask(session: str, **headers: str) -> int:
        return (await pool.ask(session=session, stream=True, headers=headers)).status_code

    of_one, of_key = await asyncio.gather(
        asyncio.gather(*(ask("one") for _ in range(8))),
        asyncio.gather(*(ask("key", authorization=f"Bearer {own}") for _ in range(6))),
    )
    of_two = await asyncio.gather(*(ask(f"s{number % 2}") for number in range(12)))
    await pool.running.idle()

    assert sorted(of_one) == [200] * 4 + [429] * 4
    assert sorted(of_two) == [200] * 6 + [429] * 6
    assert sorted(of_key) == [200] * 3 + [429] * 3
    assert not visits.here


async def test_a_session_whose_first_request_is_no_good_leaves_its_slot_at_once(
    pool: Relay, settings: Any
) -> None:
    configure(settings, session_max_concurrent=1)
    headers = CLAUDE_CODE | pool.auth

    for number, body in enumerate((b"{", b"{}", b'{"model":""}', b"x" * 100)):
        named = headers | {"x-claude-code-session-id": f"bad-{number}"}
        assert (
            await pool.http.post("/v1/messages", content=body, headers=named)
        ).status_code == 400
    leaving = await begin(pool, "left")
    while await living() != ["left"]:
        await asyncio.sleep(0.01)
    leaving.hang_up()
    await pool.running.idle()
    assert await living() == []
    packed = headers | {"x-claude-code-session-id": "packed", "content-encoding": "gzip"}
    assert (await pool.http.post("/v1/messages", content=b"x", headers=packed)).status_code == 415
    await pool.running.idle()

    assert await living() == []
    assert (await pool.ask(session="good")).status_code == 200
    assert await living() == ["good"]


async def test_a_stream_keeps_its_session_until_it_was_idle(pool: Relay, settings: Any) -> None:
    configure(settings, session_max_concurrent=1, session_idle_seconds=1.0)
    pool.simulator.script({"path": "/v1/messages"}, events=16, pace=0.1)

    stream = asyncio.create_task(pool.ask(session="one", stream=True))
    while not pool.served():
        await asyncio.sleep(0.01)
    during = []
    while not stream.done():
        during.append((await pool.ask(session="two")).status_code)
        await asyncio.sleep(0.2)
    refused = await pool.ask(session="two")
    await asyncio.sleep(int(refused.headers["retry-after"]))
    after = await pool.ask(session="two")

    assert (await stream).status_code == 200
    assert len(during) > 3
    assert set(during[:-1]) == {429}
    assert refused.headers["retry-after"] == "1"
    assert after.status_code == 200


async def test_a_message_costs_one_call_for_its_session(pool: Relay, settings: Any) -> None:
    """One by the head; by the body, too; with a look at the load the account costs another one."""
    body = {"metadata": {"user_id": json.dumps({"session_id": ID})}}

    async def cost(session: str = "", **sent: Any) -> int:
        before = _scripts()
        assert (await pool.ask(session=session or None, **sent)).status_code == 200
        await pool.running.idle()
        await sightings.appender.flushed()
        return _scripts() - before

    configure(settings, session_max_concurrent=-1)
    # It is told the script.
    await cost("first")

    assert await cost("one") == 1
    assert await cost("one") == 0
    assert await cost(**body) == 1
    assert await cost(**body) == 0
    assert await cost() == 1
    configure(settings, routing_strategy="least_used")
    assert await cost("two") == 2
    assert await cost("two") == 0


def _scripts() -> int:
    with contextlib.closing(for_jobs()) as watcher:
        told: Any = watcher.info("commandstats")
    return sum(told.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


async def test_what_a_header_claims_counts_only_from_a_trusted_proxy(
    pool: Relay, settings: Any
) -> None:
    configure(settings, session_client="ip")

    async def ask(session: str, address: str) -> int:
        headers = {"x-forwarded-for": address, "user-agent": f"agent/{session}"}
        return (await pool.ask(session=session, headers=headers)).status_code

    untrusted = [await ask(f"s{number}", f"203.0.113.{number}") for number in range(6)]
    configure(settings, trusted_proxies=("127.0.0.0/8",))
    trusted = [await ask(f"t{number}", f"203.0.113.{number}") for number in range(6)]
    one = [await ask(f"u{number}", f"6.6.6.{number}, 203.0.113.99") for number in range(4)]
    garbage = [await ask(f"v{number}", "who knows") for number in range(2)]

    assert untrusted == [200] * 3 + [429] * 3
    assert trusted == [200] * 6
    assert one == [200] * 3 + [429]
    # Back to the peer, which has its three.
    assert garbage == [429] * 2


SESSIONS: dict[str, tuple[str, str | None]] = {
    "a word": ("a-word_1.2:3", "a-word_1.2:3"),
    "128 signs": ("a" * 128, "a" * 128),
    "129 signs": ("a" * 129, "default"),
    "10 KB": ("a" * 10_240, "default"),
    "a space": ("a b", "default"),
    "a slash": ("a/b", "default"),
    "a bar": ("a|b", "default"),
    "not ASCII": ("\xe9\xff", "default"),
    "a line": ("a\r\nx-claude-code-session-id: b", None),
    "a bare CR": ("a\rb", None),
    "a bare LF": ("a\nb", None),
    "NUL": ("a\0b", None),
    "folded": ("a\r\n b", None),
    "empty": ("", "default"),
}


async def test_a_session_id_is_a_short_word_or_none_at_all(pool: Relay, settings: Any) -> None:
    configure(settings, session_max_concurrent=-1)
    body = json.dumps(ASK).encode()

    for name, (session, expected) in SESSIONS.items():
        headers = CLAUDE_CODE | pool.auth | {"x-claude-code-session-id": session}
        client = await RawClient.post(pool.url, "/v1/messages", headers, body)
        head = await asyncio.wait_for(client.head(), 5)
        client.hang_up()
        await pool.running.idle()

        # The simulator takes no line of 10 KB, which passes as it is.
        assert f" {400 if expected is None or name == '10 KB' else 200} " in head, name
        assert await living() == ([expected] if expected else []), name
        await clients.for_requests().flushdb()
        sessions.reset()


USERS: dict[str, tuple[str, str]] = {
    "the new form": (json.dumps(json.dumps({"session_id": ID})), ID),
    "the old form": (f'"user_{"a" * 64}_account__session_{ID}"', ID),
    "the last of two": ('"x","user_id":' + json.dumps(json.dumps({"session_id": ID})), ID),
    "two sessions in it": (json.dumps(f'{{"session_id":"x","session_id":"{ID}"}}'), ID),
    "a number": ("5", ""),
    "a huge number": ("9" * 400, ""),
    "a list": (f'["{ID}"]', ""),
    "an object": (f'{{"session_id":"{ID}"}}', ""),
    "nothing": ("null", ""),
    "true": ("true", ""),
    "an empty text": ('""', ""),
    "a plain text": ('"user-123"', ""),
    "1 MB": ('"' + "a" * 1_000_000 + '"', ""),
    "1 MB of the new form": (json.dumps(json.dumps({"session_id": ID, "x": "a" * 1_000_000})), ""),
    "deep in it": (json.dumps("[" * 900), ""),
    "deep objects in it": (json.dumps('{"session_id":' * 60), ""),
    "a number in it": (json.dumps('{"session_id":5}'), ""),
    "a list in it": (json.dumps(f'{{"session_id":["{ID}"]}}'), ""),
    "an object in it": (json.dumps('{"session_id":{}}'), ""),
    "nothing in it": (json.dumps('{"session_id":null}'), ""),
    "129 signs in it": (json.dumps(json.dumps({"session_id": "a" * 129})), ""),
    "lines in it": (json.dumps(json.dumps({"session_id": "a\r\nb"})), ""),
    "NUL in it": (json.dumps(json.dumps({"session_id": "a\0"})), ""),
    "not ASCII in it": (json.dumps(json.dumps({"session_id": "\u0663"})), ""),
    "half a sign in it": (json.dumps('{"session_id":"\\ud800"}'), ""),
    "no name of a session": (json.dumps('{"device_id":"x"}'), ""),
    "a list for it": (json.dumps("[1]"), ""),
}


@pytest.mark.parametrize("name", USERS)
def test_a_body_of_any_shape_names_the_right_session_or_none(name: str) -> None:
    user, expected = USERS[name]

    assert _session_of(f'{{"user_id":{user}}}') == (expected or None)


@pytest.mark.parametrize("metadata", ["5", "null", "[]", '"x"', "true", "{}", '[{"user_id":"x"}]'])
def test_metadata_of_any_shape_names_none(metadata: str) -> None:
    assert _session_of(metadata) is None


@pytest.mark.parametrize("metadata", ['{"user_id":' * 3000, "[" * 100_000, '{"user_id":"\\ud800"}'])
def test_a_body_that_is_no_json_is_refused(metadata: str) -> None:
    with pytest.raises(RelayError) as refused:
        _session_of(metadata)

    assert refused.value.code == "bad_json"


def _session_of(metadata: str) -> str | None:
    body = f'{{"model":"{MODEL}","metadata":{metadata}}}'.encode()
    scope = {"method": "POST", "raw_path": b"/v1/messages", "query_string": b"", "headers": ()}
    return request.parse("rly_1", keys.Key(1, "key", None), scope, "/v1/messages", (), body).session


async def test_the_session_in_a_body_is_limited_and_revoked_too(pool: Relay, settings: Any) -> None:
    configure(settings, session_max_concurrent=1)
    client = await client_of(pool)

    async def ask(session: str) -> str:
        answer = await pool.ask(metadata={"user_id": json.dumps({"session_id": session})})
        return answer.headers.get("x-relay-error", str(answer.status_code))

    found = [await ask(ID), await ask("other")]
    await revoke(f"{client}/{ID}")
    found.append(await ask(ID))

    assert found == ["200", "session_limit", "session_revoked"]
    assert len(pool.served()) == 1


async def test_whoever_has_no_limit_is_still_seen(pool: Relay, settings: Any) -> None:
    configure(settings, session_limit=False, session_max_total=1, session_max_concurrent=0)

    answers = [await pool.ask(session=f"s{number}") for number in range(5)]

    assert {answer.status_code for answer in answers} == {200}
    assert len(await living()) == 5
    assert sticky.seen(int((await client_of(pool)).removeprefix("key:")), "s1") is not None
    await presence.beat()
