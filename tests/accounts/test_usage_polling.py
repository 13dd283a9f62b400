"""Idle accounts are asked for their usage: rarely, by one process, and to their benefit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import adding, facts, health
from accounts.models import Account, Egress, LimitWindow
from accounts.polling import poll_usage
from accounts.states import Status
from events.models import Event
from providers.base import Window
from tests.support.simulator import Simulator

PATH = "/api/oauth/usage"
ADA = "ada@example.com"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def poll(now: datetime) -> int:
    return asyncio.run(poll_usage(now))


def asked(simulator: Simulator) -> int:
    return len(simulator.requests(PATH))


def bench(account: Account, now: datetime, *, reason: str, minutes: int = 120) -> None:
    """Bench an account by an answer that came `minutes` before its end, a moment ago."""
    until = now + minutes * MINUTE
    Account.objects.filter(pk=account.pk).update(status_changed_at=now - HOUR)
    assert health.limit(account.pk, until, reason, observed_at=now - MINUTE)


def events(kind: str) -> list[dict[str, Any]]:
    return [row.data | {"by": row.by} for row in Event.objects.filter(kind=kind).order_by("id")]


def test_what_it_learns_is_stored_and_counts_as_no_use(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    simulator.limit(ADA, {"5h": {"utilization": 0.25}, "7d_oi": {"utilization": 0.5}})

    assert poll(now) == 1

    windows = {row.name: row for row in LimitWindow.objects.all()}
    account.refresh_from_db()
    assert {name: row.utilization for name, row in windows.items()} == {
        "5h": 0.25,
        "7d": 0.1,
        "7d_oi": 0.5,
    }
    assert windows["5h"].observed_at == now == account.usage_checked_at
    assert account.samples.filter(name="5h").count() == 1
    assert account.last_used_at is None


def test_an_account_is_asked_every_ten_minutes_at_most(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    for minute in (0, 1, 9, 10, 19, 20):
        poll(now + minute * MINUTE)

    assert asked(simulator) == 3


def test_an_account_whose_answers_tell_is_not_asked(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    facts.write([facts.row(account.pk, now, [Window("5h", "allowed", 0.1)])])

    assert poll(now + 9 * MINUTE) == 0
    assert poll(now + 10 * MINUTE) == 1
    assert asked(simulator) == 1


@pytest.mark.parametrize("column", ["usage_checked_at", "usage_not_before"])
def test_a_clock_that_was_set_back_keeps_no_account_from_being_asked(
    account: Account, now: datetime, column: str
) -> None:
    facts.write([facts.row(account.pk, now + 300 * HOUR, [Window("5h", "allowed", 0.1)])])
    Account.objects.filter(pk=account.pk).update(**{column: now + 300 * HOUR})

    assert poll(now) == 1
    assert poll(now) == 0


def test_two_beats_at_once_ask_once(account: Account, simulator: Simulator, now: datetime) -> None:
    async def beats() -> list[int]:
        return list(await asyncio.gather(*(poll_usage(now + i * MINUTE / 60) for i in range(4))))

    assert sum(asyncio.run(beats())) == 1
    assert asked(simulator) == 1


def test_accounts_are_asked_in_turn(
    link: Callable[..., Account], simulator: Simulator, now: datetime
) -> None:
    for number in range(3):
        link(f"p{number}@example.com")
    adding.add_secret("setup_token", "setup", simulator.setup_token("p0@example.com"), by="ada")
    adding.add_secret("api_key", "key", simulator.api_key("key"), by="ada")

    assert [poll(now + minute * MINUTE) for minute in range(6)] == [1, 1, 1, 0, 0, 0]
    assert {entry["account"] for entry in simulator.requests(PATH)} == {
        f"p{number}@example.com" for number in range(3)
    }


def test_an_account_that_is_out_is_not_asked(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    rows = Account.objects.filter(pk=account.pk)
    for change in ({"status": "inactive"}, {"status": "invalid"}, {"deleted_at": now}):
        rows.update(**{"status": "active", "deleted_at": None} | change)
        poll(now)

    # Nor is one with a token that has ended.
    rows.update(status="active", deleted_at=None)
    poll(now + 9 * HOUR)

    assert asked(simulator) == 0


def test_its_own_429_is_honoured_and_told_once_and_again_as_it_doubles(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    simulator.script({"path": PATH}, times=None, status=429, headers={"retry-after": "1800"})

    for minute in range(0, 180, 20):
        poll(now + minute * MINUTE)

    told = events("account.poll_failed")
    account.refresh_from_db()
    assert asked(simulator) == account.usage_failures <= 6
    assert [event["attempt"] for event in told] == [1, 2, 4][: len(told)]
    assert all(event["seconds"] >= 1800 for event in told)
    assert told[0]["why"] == "status 429"

    simulator.clear_scripts()
    poll(now + 5 * HOUR)
    account.refresh_from_db()
    assert (account.usage_failures, account.usage_not_before) == (0, None)


def test_no_failure_of_the_endpoint_moves_an_account(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    for number, status in enumerate((401, 500, 529), 1):
        simulator.script({"path": PATH}, status=status, body={})
        at = now + number * HOUR
        assert poll(at) == 0

        account.refresh_from_db()
        assert (account.status, account.usage_failures) == (Status.ACTIVE, number)
        assert account.usage_not_before is not None
        assert account.usage_not_before >= at + 10 * MINUTE


def test_a_page_of_the_network_is_no_refusal(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    simulator.script({"path": PATH}, status=403, text="<html>denied</html>")

    poll(now)

    assert [event["why"] for event in events("account.poll_failed")] == ["status 403"]
    assert poll(now + 11 * MINUTE) == 1


def test_a_login_that_may_not_ask_is_left_alone_for_a_day_without_a_word(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    told = {"type": "error", "error": {"type": "permission_error", "message": "scope"}}
    simulator.script({"path": PATH}, times=None, status=403, body=told)

    for hour in (0, 1, 2, 7):
        poll(now + hour * HOUR)

    account.refresh_from_db()
    assert asked(simulator) == 1
    assert account.usage_not_before == now + 24 * HOUR
    assert not Event.objects.filter(kind="account.poll_failed").exists()


def test_a_connection_that_is_lost_is_tried_again_at_once(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    simulator.script({"path": PATH}, times=1, reset=True)

    assert poll(now) == 1
    assert asked(simulator) == 2


def test_an_account_with_a_proxy_of_its_own_is_asked_through_it(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    Egress.objects.create(account=account, url="http://user:secret@127.0.0.1:9")

    assert poll(now) == 0
    assert asked(simulator) == 0
    assert [event["why"] for event in events("account.poll_failed")] == ["ConnectError"]


def test_an_answer_that_cannot_be_read_is_a_failure(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    bodies: list[Any] = [[], "<html>", {"limits": "9" * 300_000}]
    for number, body in enumerate(bodies):
        simulator.script({"path": PATH}, body=body)
        assert poll(now + number * HOUR) == 0

    assert LimitWindow.objects.count() == 0
    assert [event["why"] for event in events("account.poll_failed")] == ["status 200"] * 2


def test_a_limit_that_was_lifted_early_is_found_out_without_a_request(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    bench(account, now, reason="limit_reached (5h)")
    simulator.limit(ADA, {"5h": {"utilization": 0.05}})

    poll(now)

    account.refresh_from_db()
    recovered = events("account.recover")
    assert (account.status, account.limited_until) == (Status.ACTIVE, None)
    assert [(event["by"], event["used_5h"]) for event in recovered] == [("usage", 0.05)]


@pytest.mark.parametrize(
    ("reason", "used", "because", "hours", "probed"),
    [
        ("limit_reached (7d)", {"5h": 1.0, "7d": 0.1}, "limit_reached (5h)", 3, True),
        ("limit_reached (7d)", {"5h": 0.9, "7d": 0.1}, "headroom (5h)", 3, False),
        ("headroom (7d)", {"5h": 0.9, "7d": 0.1}, "headroom (5h)", 3, False),
        ("limit_reached (5h)", {"5h": 0.0, "7d": 1.0}, "limit_reached (7d)", 96, True),
    ],
)
def test_a_limit_that_is_over_gives_way_to_another_that_holds(
    account: Account,
    simulator: Simulator,
    now: datetime,
    reason: str,
    used: dict[str, float],
    because: str,
    hours: int,
    probed: bool,
) -> None:
    Account.objects.filter(pk=account.pk).update(leave_at_percent=80)
    bench(account, now, reason=reason, minutes=4 * 60)
    resets = {"5h": now + 3 * HOUR, "7d": now + 96 * HOUR}
    told = {
        name: {"utilization": share, "reset": int(resets[name].timestamp())}
        for name, share in used.items()
    }
    simulator.limit(ADA, told)

    poll(now)

    account.refresh_from_db()
    assert account.limited_until is not None
    assert (account.status, account.reason) == (Status.RATE_LIMITED, because)
    assert abs(account.limited_until - now - hours * HOUR) < MINUTE
    assert (account.probe_at is not None) is probed
    assert events("account.recover") == []

    poll(now + 11 * MINUTE)
    simulator.limit(ADA, {"5h": {"utilization": 0.0}, "7d": {"utilization": 0.1}})
    poll(now + 22 * MINUTE)

    account.refresh_from_db()
    assert account.status == Status.ACTIVE


def test_usage_ends_no_limit_that_it_says_nothing_of(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    simulator.limit(ADA, {"5h": {"utilization": 0.0}, "7d": {"utilization": 1.0}})

    for hour, reason in enumerate(("billing", "spend_cap", "limit_reached", "limit_reached (7d)")):
        at = now + hour * HOUR
        Account.objects.filter(pk=account.pk).update(status=Status.ACTIVE, limited_until=None)
        bench(account, at, reason=reason)
        assert poll(at) == 1
        account.refresh_from_db()
        assert (account.status, account.reason) == (Status.RATE_LIMITED, reason)


def test_usage_seen_before_the_limit_proves_nothing(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    bench(account, now + 2 * MINUTE, reason="limit_reached (5h)")

    poll(now)

    account.refresh_from_db()
    assert account.status == Status.RATE_LIMITED


def test_it_disproves_only_the_limit_that_it_was_judged_by(account: Account, now: datetime) -> None:
    bench(account, now, reason="limit_reached (5h)")
    until = Account.objects.get(pk=account.pk).limited_until
    assert until is not None
    health.limit(account.pk, until + HOUR, "spend_cap", observed_at=now)
    later = now + MINUTE

    for end, reason in ((until, "spend_cap"), (until + HOUR, "limit_reached (5h)")):
        assert not health.proved_open(account.pk, later, limited_until=end, reason=reason)
        assert not health.end_earlier(account.pk, later, later, limited_until=end, reason=reason)
    assert health.proved_open(account.pk, later, limited_until=until + HOUR, reason="spend_cap")


def test_the_countdown_comes_forward_to_the_reset_that_is_told(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    bench(account, now, reason="limit_reached (5h)", minutes=240)
    reset = int((now + HOUR).timestamp())
    simulator.limit(ADA, {"5h": {"status": "rejected", "reset": reset}})

    poll(now)

    account.refresh_from_db()
    assert account.status == Status.RATE_LIMITED
    assert account.limited_until is not None
    assert abs(account.limited_until - now - HOUR) < timedelta(seconds=3)
    assert [event["by"] for event in events("account.limit_shortened")] == ["usage"]


def test_an_account_that_is_spent_is_benched_before_a_request_meets_it(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    Account.objects.filter(pk=account.pk).update(status_changed_at=now - HOUR)
    reset = int((now + HOUR).timestamp())
    simulator.limit(ADA, {"5h": {"status": "rejected", "reset": reset}})

    poll(now)

    account.refresh_from_db()
    assert (account.status, account.reason) == (Status.RATE_LIMITED, "limit_reached (5h)")
    assert account.limited_until is not None
    assert abs(account.limited_until - now - HOUR) < timedelta(seconds=3)
    assert account.probe_at == now + HOUR
    assert [event["by"] for event in events("account.limit")] == ["usage"]


def test_an_account_leaves_at_the_share_that_is_kept_for_its_owner_and_comes_back(
    account: Account, simulator: Simulator, now: datetime
) -> None:
    kept = Account.objects.filter(pk=account.pk)
    kept.update(leave_at_percent=80, status_changed_at=now - HOUR)
    simulator.limit(ADA, {"7d": {"utilization": 0.8}})

    poll(now)
    account.refresh_from_db()
    assert (account.status, account.reason) == (Status.RATE_LIMITED, "headroom (7d)")
    assert account.probe_at is None

    simulator.limit(ADA, {"7d": {"utilization": 0.1}})
    poll(now + 11 * MINUTE)
    account.refresh_from_db()
    assert account.status == Status.ACTIVE
