"""An account leaves the pool for its owner's sake, by what any answer tells, before any refusal."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from accounts import pool
from accounts.models import Account
from events.models import Event
from relay import effects
from relay.bench import bench
from tests.relay.conftest import Relay

ADA = "ada@example.com"


async def _let(relay: Relay, name: str, **fields: Any) -> None:
    await Account.objects.filter(pk=relay.accounts[name].pk).aupdate(**fields)
    pool.snapshot.invalidate()


async def _settle(relay: Relay) -> None:
    await relay.running.idle()
    await effects.settled()


async def test_it_leaves_at_its_line_on_an_answer_that_goes_through_untouched(
    relay: Relay,
) -> None:
    await relay.link("ada", "grace")
    await _let(relay, "ada", leave_at_percent=90)
    reset = int(time.time()) + 9000
    relay.simulator.limit(ADA, {"5h": {"utilization": 0.93, "reset": reset}})

    answers = [await relay.ask(session=f"s{turn}") for turn in range(5)]
    await _settle(relay)

    ada = await relay.account("ada")
    assert {answer.status_code for answer in answers} == {200}
    assert relay.served().count("ada") == 1
    assert (ada.status, ada.reason, ada.probe_at) == ("rate_limited", "headroom (5h)", None)
    assert ada.limited_until == datetime.fromtimestamp(reset, UTC)
    assert await Event.objects.filter(kind="account.limit").acount() == 1


async def test_many_answers_at_once_make_it_leave_once(relay: Relay) -> None:
    await relay.link("ada")
    await _let(relay, "ada", leave_at_percent=90)
    relay.simulator.limit(ADA, {"7d": {"utilization": 0.9}})
    relay.simulator.script(times=None, delay=0.2)

    answers = await asyncio.gather(*(relay.ask() for _ in range(5)))
    await _settle(relay)

    assert {answer.status_code for answer in answers} == {200}
    assert (await relay.account("ada")).reason == "headroom (7d)"
    assert await Event.objects.filter(kind="account.limit").acount() == 1


async def test_it_leaves_also_while_it_is_held_for_something_else(relay: Relay) -> None:
    await relay.link("ada")
    await _let(relay, "ada", leave_at_percent=90, requests_per_minute=1)
    relay.simulator.limit(ADA, {"5h": {"utilization": 0.93}})
    relay.simulator.script(delay=0.2)

    slow = asyncio.create_task(relay.ask())
    while not relay.served():
        await asyncio.sleep(0.01)
    refused = await relay.ask()
    answer = await slow
    await _settle(relay)

    assert (answer.status_code, refused.status_code) == (200, 429)
    assert (await relay.account("ada")).reason == "headroom (5h)"


async def test_it_leaves_before_the_second_paid_answer(relay: Relay) -> None:
    await relay.link("ada", "grace")
    reset = int(time.time()) + 9000
    relay.simulator.limit(ADA, {"5h": {"status": "rejected", "reset": reset}})
    relay.simulator.overage(ADA)

    for turn in range(4):
        assert (await relay.ask(session=f"s{turn}")).status_code == 200
    await _settle(relay)

    ada = await relay.account("ada")
    assert relay.served().count("ada") == 1
    assert (ada.status, ada.reason, ada.probe_at) == ("rate_limited", "overage (5h)", None)
    assert ada.limited_until == datetime.fromtimestamp(reset, UTC)


async def test_where_it_may_cost_extra_it_only_comes_last(relay: Relay) -> None:
    await relay.link("ada", "grace")
    await _let(relay, "ada", never_overage=False)
    relay.simulator.limit(ADA, {"5h": {"status": "rejected"}})
    relay.simulator.overage(ADA)

    for turn in range(4):
        assert (await relay.ask(session=f"s{turn}")).status_code == 200
    assert relay.served().count("ada") == 1
    relay.simulator.limit("grace@example.com", {"5h": {"status": "rejected"}})
    answer = await relay.ask(session="last")
    await _settle(relay)

    assert answer.status_code == 200
    assert relay.served()[-1] == "ada"
    assert (await relay.account("ada")).status == "active"


async def test_a_familys_window_withholds_that_family_alone(relay: Relay) -> None:
    await relay.link("ada", "grace")
    await _let(relay, "ada", leave_at_percent=80)
    relay.simulator.limit(ADA, {"7d_oi": {"utilization": 0.85}})

    for turn in range(3):
        await relay.ask(session=f"fable{turn}", model="claude-fable-5-2")
    fable = relay.served().count("ada")
    for turn in range(2):
        await relay.ask(session=f"opus{turn}")
    await _settle(relay)

    assert fable == 1
    assert relay.served().count("ada") == 2
    assert (await relay.account("ada")).status == "active"


async def test_a_key_that_has_spent_its_minute_comes_last(relay: Relay) -> None:
    busy, _ = await relay.add_api_key("busy"), await relay.add_api_key("idle")
    relay.simulator.per_minute("busy", requests={"limit": 50, "remaining": 0})

    for turn in range(4):
        assert (await relay.ask(session=f"s{turn}")).status_code == 200
    await _settle(relay)

    assert relay.served().count("busy") == 1
    assert (await relay.account("busy")).status == "active"
    now = timezone.now()
    assert bench.is_deferred(busy.pk, "", now + timedelta(seconds=50))
    assert not bench.is_deferred(busy.pk, "", now + timedelta(seconds=60))


async def test_a_probe_that_is_served_but_paid_for_brings_nobody_back(relay: Relay) -> None:
    await relay.link("ada")
    until = timezone.now() + timedelta(hours=2)
    reset = int(until.timestamp())
    relay.simulator.limit(ADA, {"5h": {"utilization": 1.0, "reset": reset}})
    relay.simulator.overage(ADA)
    await _let(
        relay,
        "ada",
        status="rate_limited",
        reason="limit_reached (5h)",
        limited_until=until,
        status_changed_at=timezone.now() - timedelta(hours=1),
        probe_at=timezone.now(),
    )

    answer = await relay.ask()
    await _settle(relay)

    ada = await relay.account("ada")
    assert answer.status_code == 200
    assert (ada.status, ada.probe_at) == ("rate_limited", None)


async def test_a_refusal_tells_of_its_other_windows(relay: Relay) -> None:
    await relay.link("ada")
    await _let(relay, "ada", leave_at_percent=90)
    soon, later = int(time.time()) + 900, int(time.time()) + 90_000
    windows = {
        "5h": {"status": "rejected", "reset": soon},
        "7d": {"utilization": 0.95, "reset": later},
    }
    relay.simulator.limit(ADA, windows)

    answer = await relay.ask(stream=True)
    await _settle(relay)

    ada = await relay.account("ada")
    assert answer.status_code == 429
    assert (ada.reason, ada.probe_at) == ("headroom (7d)", None)
    assert ada.limited_until == datetime.fromtimestamp(later, UTC)
