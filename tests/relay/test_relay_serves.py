"""A request goes to an account of the pool and its answer comes back as it was."""

from __future__ import annotations

from tests.relay.conftest import Relay


async def test_it_answers_from_a_linked_account(relay: Relay) -> None:
    await relay.link("ada")

    answer = await relay.ask("reply: it works")

    assert answer.status_code == 200
    assert answer.json()["content"][0]["text"] == "it works"


async def test_it_streams(relay: Relay) -> None:
    await relay.link("ada")

    answer = await relay.ask("reply: it works", stream=True)

    assert answer.status_code == 200
    assert answer.text.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
