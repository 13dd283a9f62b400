"""What a process learns from the pool: gentle returns it has not caused, and what was cleared."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from accounts.pool import Member, Pool
from accounts.states import Kind, Status
from relay import news, outcomes
from relay.bench import bench
from relay.ramp import ramp

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
OPUS = "claude-opus-5-5"


@pytest.fixture(autouse=True)
def _forgets() -> Iterator[None]:
    outcomes.reset()
    yield
    outcomes.reset()


def view(
    *, limited_until: datetime | None = None, cleared_at: datetime | None = None, of: int = 1
) -> Pool:
    status = Status.ACTIVE if limited_until is None else Status.RATE_LIMITED
    account = Member(
        of,
        "ada",
        Kind.API_KEY,
        status,
        limited_until,
        None,
        None,
        credential=uuid4(),
        secret="x",
        cleared_at=cleared_at,
    )
    return Pool((account,))


def test_a_limit_that_another_process_met_ends_in_a_slow_start_here_too() -> None:
    news.follow(view(limited_until=LATER), NOW)
    # The time has passed; the job has not tidied yet.
    news.follow(view(limited_until=LATER), LATER)
    start = ramp.take(1)

    assert not ramp.admits(1)

    ramp.succeeded(1, start)
    news.follow(view(limited_until=LATER), LATER)
    assert ramp.admits(1)


def test_who_is_linked_or_comes_back_begins_slowly_and_at_first_nobody_does() -> None:
    def gentle(*accounts: int) -> list[int]:
        """Return which of them take one request only."""
        taken = [(account, ramp.take(account)) for account in accounts]
        return [account for account, start in taken if start and not ramp.has_room(account)]

    news.follow(pool_of(1, 2), NOW)
    assert gentle(1, 2) == []

    news.follow(pool_of(1, 2, 3), NOW)
    assert gentle(1, 2, 3) == [3]

    ramp.reset()
    news.follow(pool_of(2, 3), NOW)
    assert gentle(2, 3) == [2, 3]
    assert ramp.admits(2)

    ramp.reset()
    news.follow(pool_of(1, 2, 3), NOW)
    assert gentle(1, 2, 3) == [1]
    assert not ramp.admits(1)


def pool_of(*accounts: int) -> Pool:
    return Pool(tuple(member for account in accounts for member in view(of=account).members))


def test_what_is_held_against_a_cleared_account_is_forgotten_once() -> None:
    for account in (1, 2):
        bench.hold(account, LATER)
        bench.hold(account, LATER, OPUS)
        bench.penalise(account, NOW)
        bench.lacks(account, OPUS, NOW)

    news.follow(view(cleared_at=NOW), NOW)

    assert bench.held_until(1, OPUS, NOW) is None
    assert not bench.is_penalised(1, NOW)
    assert not bench.is_lacking(1, OPUS, NOW)
    assert bench.held_until(2, OPUS, NOW) == LATER
    bench.hold(1, LATER, OPUS)
    news.follow(view(cleared_at=NOW), NOW)
    assert bench.held_until(1, OPUS, NOW) == LATER
    news.follow(view(cleared_at=LATER), NOW)
    assert bench.held_until(1, OPUS, NOW) is None
