"""A week of six accounts: every event, state and alert of it, and every call that it took."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from events.models import Delivery
from sessions_limit import keys
from tests.conftest import RunningRelay
from tests.relay.conftest import Relay
from tests.support.inbox import Inbox
from tests.support.simulator import Simulator
from tests.support.virtual_time import STEP, travelling
from tests.weeks.week import END, MONDAY, Week, told

JOURNAL = """
Tue 09:10:00 ada account.limit, active -> rate_limited, limit_reached (5h), until Tue 13:00:10, by relay
Tue 09:10:00 ada account.near_limit, 5h, by system
Tue 13:00:30 ada account.recover, rate_limited -> active, by job
Wed 08:00:00 grace account.limit, active -> rate_limited, limit_reached (7d), until Sat 12:00:10, by usage
Wed 08:00:00 grace account.near_limit, 7d, by system
Wed 18:00:00 mary account.poll_failed, status 401, attempt 1, by job
Wed 21:00:00 mary account.poll_failed, status 401, attempt 2, by job
Wed 22:00:00 mary account.reject, active -> invalid, refresh_rejected, by refresh
Thu 09:10:00 ada account.limit, active -> rate_limited, limit_reached (5h), until Thu 14:00:00, by relay
Thu 09:10:00 ada account.near_limit, 5h, by system
Thu 10:40:00 ada account.recover, rate_limited -> active, by probe
Thu 21:00:00 edith account.poll_failed, status 400, attempt 1, by job
Thu 21:00:00 edith account.reject, active -> invalid, provider_disabled, status 400, by profile
Sat 09:10:00 ada account.limit, active -> rate_limited, limit_reached (5h), until Sat 14:00:00, by relay
Sat 09:10:00 ada account.near_limit, 5h, by system
Sat 12:00:30 grace account.recover, rate_limited -> active, by job
Sat 13:00:00 ada account.recover, rate_limited -> active, by usage
next Mon 01:00:00 linus account.idle, active -> inactive, idle, by job
"""  # noqa: E501

# Who was asked, in their order: probes of ada and grace cost the client nothing.
SERVED = """
Mon 09:10:00 ada
Mon 10:10:00 console
Mon 16:10:00 ada
Tue 09:10:00 ada, grace
Tue 10:10:00 console
Tue 12:10:00 ada, grace
Tue 13:00:09 grace
Tue 13:00:11 ada
Tue 16:10:00 ada
Wed 09:10:00 grace, ada
Wed 10:10:00 console
Wed 16:10:00 grace, ada
Thu 09:10:00 grace, ada, console
Thu 10:10:00 console
Thu 10:40:00 ada
Thu 16:10:00 grace, ada
Fri 09:10:00 grace, ada
Fri 10:10:00 console
Fri 16:10:00 grace, ada
Sat 09:10:00 grace, ada, console
Sat 10:10:00 console
Sat 16:10:00 ada
Sun 09:10:00 ada
Sun 10:10:00 console
Sun 16:10:00 ada
"""

STATES = """
Tue 09:09:59 all active
Tue 09:10:01 ada rate_limited limit_reached (5h)
Tue 13:00:29 ada rate_limited limit_reached (5h)
Tue 13:00:31 all active
Wed 08:00:01 grace rate_limited limit_reached (7d)
Thu 00:00:01 grace rate_limited limit_reached (7d); mary invalid refresh_rejected
Thu 09:10:01 ada rate_limited limit_reached (5h); grace rate_limited limit_reached (7d); mary invalid refresh_rejected
Thu 10:40:01 grace rate_limited limit_reached (7d); mary invalid refresh_rejected
Thu 21:00:01 grace rate_limited limit_reached (7d); mary invalid refresh_rejected; edith invalid provider_disabled
Sat 09:10:01 ada rate_limited limit_reached (5h); grace rate_limited limit_reached (7d); mary invalid refresh_rejected; edith invalid provider_disabled
Sat 12:00:31 ada rate_limited limit_reached (5h); mary invalid refresh_rejected; edith invalid provider_disabled
Sat 13:00:01 mary invalid refresh_rejected; edith invalid provider_disabled
next Mon 00:59:59 mary invalid refresh_rejected; edith invalid provider_disabled
next Mon 01:00:01 linus inactive idle; mary invalid refresh_rejected; edith invalid provider_disabled
"""  # noqa: E501

ALERTS = """
Tue 09:10:00 account.limit: Account ada is rate limited until 13:00 UTC: limit_reached (5h).
Tue 09:10:00 account.near_limit: Account ada has used 100 % of its window 5h (resets 13:00 UTC).
Wed 08:00:00 account.limit: Account grace is rate limited until 06 Mar 12:00 UTC: limit_reached (7d).
Wed 08:00:00 account.near_limit: Account grace has used 100 % of its window 7d (resets 06 Mar 12:00 UTC).
Wed 22:00:00 account.reject: Account mary is invalid: refresh_rejected. Somebody must look after it.
Thu 09:10:00 account.limit: Account ada is rate limited until 14:00 UTC: limit_reached (5h).
Thu 09:10:00 account.near_limit: Account ada has used 100 % of its window 5h (resets 14:00 UTC).
Thu 21:00:00 account.reject: Account edith is invalid: provider_disabled. Somebody must look after it.
Sat 09:10:00 account.limit: Account ada is rate limited until 14:00 UTC: limit_reached (5h).
Sat 09:10:00 account.near_limit: Account ada has used 100 % of its window 5h (resets 14:00 UTC).
next Mon 01:00:00 account.idle: Account linus was set aside: nobody used it for a long time.
"""  # noqa: E501

# One call more at the token endpoint than refreshes is the login; mary's last one was refused.
CALLS = {
    "ada": {"messages": 17, "tokens": 25, "usage": 48, "profile": 7, "models": 8},
    "grace": {"messages": 10, "tokens": 25, "usage": 52, "profile": 7, "models": 8},
    "console": {"messages": 9, "models": 8},
    "linus": {"tokens": 25, "usage": 57, "profile": 7, "models": 8},
    "mary": {"tokens": 11, "usage": 24, "profile": 3, "models": 3},
    "edith": {"tokens": 14, "usage": 32, "profile": 5, "models": 4},
}
REFRESHES = {"ada": 24, "grace": 24, "linus": 24, "mary": 9, "edith": 13}
LIFE = 8 * 3600


@pytest.mark.slow
@pytest.mark.parametrize("beats", [1, 2])
async def test_a_week_of_limits_and_losses_goes_as_it_is_written(
    running_relay: RunningRelay, simulator: Simulator, settings: Any, inbox: Inbox, beats: int
) -> None:
    """With every job run twice at once, each time, nothing is different."""
    settings.CONFIG = settings.CONFIG.model_copy(
        update={
            "allow_loopback_upstreams": True,
            "routing_strategy": "priority",
            "usage_poll_minutes": 180.0,
        }
    )

    with travelling(MONDAY, simulator, running_relay, beats) as time:
        _, key = await sync_to_async(keys.create)(name="test", by="test")
        week = Week(Relay(running_relay, simulator, key))
        await week.set_up(inbox)
        week.look(*(line[: line.index(":") + 6] for line in lines(STATES)))
        await time.pass_until(END, week.story())

    assert await week.journal() == lines(JOURNAL)
    assert week.served == lines(SERVED)
    assert week.states == lines(STATES)
    alerts = [(at, f"{body['type']}: {body['data']['text']}") for at, body in inbox.seen]
    assert [f"{told(at)} {text}" for at, text in sorted(alerts)] == lines(ALERTS)
    assert inbox.refused == 0
    sent = Delivery.objects.values_list("state", "attempts", "suppressed")
    assert [row async for row in sent] == [("delivered", 1, 0)] * len(alerts)
    assert week.calls() == CALLS
    refreshes = await week.refreshes()
    assert {name: len(moments) for name, moments in refreshes.items()} == REFRESHES
    for earlier, later in (pair for moments in refreshes.values() for pair in pairwise(moments)):
        assert 0.75 * LIFE <= (later - earlier).total_seconds() <= 0.85 * LIFE + STEP.seconds


def lines(table: str) -> list[str]:
    return table.strip().splitlines()
