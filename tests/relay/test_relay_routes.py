"""Sessions are dealt to the accounts in turn and stay where they are."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from lib.redis import for_requests
from sessions_limit import sticky
from tests.relay.conftest import CLAUDE_CODE, Relay


async def test_six_sessions_over_three_accounts_land_two_on_each(relay: Relay) -> None:
    await relay.link("ada", "grace", "linus")

    for session in "abcdef":
        await relay.ask(session=session)

    assert Counter(relay.served()) == {"ada": 2, "grace": 2, "linus": 2}


async def test_a_session_stays_with_its_account(relay: Relay) -> None:
    await relay.link("ada", "grace", "linus")

    for _ in range(3):
        await relay.ask(session="a")
        await relay.ask(session="b")

    served = relay.served()
    assert len(set(served[0::2])) == len(set(served[1::2])) == 1
    assert served[0] != served[1]


async def test_a_session_is_bound_over_processes(relay: Relay) -> None:
    await relay.link("ada", "grace", "linus")

    for _ in range(4):
        await relay.ask(session="a")
        sticky.reset()

    assert len(set(relay.served())) == 1


async def test_parallel_first_requests_of_a_session_land_together(relay: Relay) -> None:
    await relay.link("ada", "grace", "linus")

    await asyncio.gather(*(relay.ask(session="a") for _ in range(10)))

    assert len(set(relay.served())) == 1


async def test_the_session_is_found_in_the_body_when_no_header_names_it(relay: Relay) -> None:
    await relay.link("ada", "grace", "linus")
    user_id = '{"device_id":"d","account_uuid":"","session_id":"0a1b-2c"}'

    for _ in range(4):
        await relay.ask(metadata={"user_id": user_id})

    assert len(set(relay.served())) == 1


async def test_requests_without_a_session_take_turns(relay: Relay) -> None:
    await relay.link("ada", "grace", "linus")

    for _ in range(6):
        await relay.ask()

    assert Counter(relay.served()) == {"ada": 2, "grace": 2, "linus": 2}


async def test_without_stickiness_every_request_takes_the_next_account(
    relay: Relay, settings: Any
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"sticky_sessions": False})
    await relay.link("ada", "grace", "linus")

    for _ in range(6):
        await relay.ask(session="a")

    assert Counter(relay.served()) == {"ada": 2, "grace": 2, "linus": 2}


async def test_a_session_that_had_to_move_does_not_come_back(relay: Relay) -> None:
    await relay.link("ada", "grace")
    await relay.ask(session="a")
    first = relay.served()[0]
    relay.simulator.script({"account": f"{first}@example.com"}, status=500)

    for _ in range(3):
        await relay.ask(session="a")
        sticky.reset()

    assert len(set(relay.served()[2:])) == 1
    assert relay.served()[2] != first


async def test_sessions_of_two_keys_are_two_sessions(relay: Relay) -> None:
    from asgiref.sync import sync_to_async

    from sessions_limit import keys

    await relay.link("ada", "grace")
    _, other = await sync_to_async(keys.create)(name="other", by="test")

    await relay.ask(session="a")
    await relay.ask(session="a", headers={"authorization": f"Bearer {other}"})

    assert len(set(relay.served())) == 2


async def test_bindings_end_after_an_idle_hour(relay: Relay) -> None:
    await relay.link("ada")
    await relay.ask(session="a")

    names = [name async for name in for_requests().scan_iter("session:*")]

    assert len(names) == 1
    assert 3500 < await for_requests().ttl(names[0]) <= 3600


async def test_without_redis_requests_are_still_served(relay: Relay, settings: Any) -> None:
    from lib import redis

    await relay.link("ada", "grace")
    await redis.close()
    working = settings.REDIS_URL
    settings.REDIS_URL = "unix:///nonexistent/valkey.sock"

    answers = [await relay.ask(session=s, headers=CLAUDE_CODE) for s in "abcd"]

    settings.REDIS_URL = working
    await redis.close()
    assert {answer.status_code for answer in answers} == {200}
    assert Counter(relay.served()) == {"ada": 2, "grace": 2}
