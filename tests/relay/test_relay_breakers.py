"""Retries are rationed, failing accounts rest, a failing upstream is spared, returns are gentle."""

from __future__ import annotations

import pytest

from relay.breaker import AccountBreaker, HostBreaker
from relay.budget import Budget


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_retries_are_a_tenth_of_the_requests_beyond_what_was_saved(clock: Clock) -> None:
    budget = Budget(clock)
    while budget.spend():
        pass

    for _ in range(100):
        budget.earn()
    spent = sum(budget.spend() for _ in range(100))

    assert spent == 10


def test_a_quiet_relay_may_retry_three_times_a_second(clock: Clock) -> None:
    budget = Budget(clock)
    while budget.spend():
        pass

    clock.now += 1
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
    clock.now += 1
    assert budget.spend()


def test_an_account_that_fails_alone_rests_and_longer_each_time(clock: Clock) -> None:
    breaker = AccountBreaker(clock)
    breaker.succeeded(2)

    first = [breaker.failed(1, [1, 2]) for _ in range(5)]
    assert first[:4] == [None] * 4
    assert first[4] is not None
    assert 24 <= first[4] <= 36
    clock.now += 40
    breaker.succeeded(2)
    second = [breaker.failed(1, [1, 2]) for _ in range(5)][-1]

    assert second is not None
    assert 48 <= second <= 72


def test_when_all_accounts_fail_none_rests(clock: Clock) -> None:
    breaker = AccountBreaker(clock)

    assert [breaker.failed(1, [1, 2]) for _ in range(9)] == [None] * 9


def test_a_success_in_between_ends_the_row(clock: Clock) -> None:
    breaker = AccountBreaker(clock)
    breaker.succeeded(2)

    for _ in range(4):
        breaker.failed(1, [1, 2])
    breaker.succeeded(1)

    assert breaker.failed(1, [1, 2]) is None


def test_failures_spread_over_more_than_a_minute_do_not_count(clock: Clock) -> None:
    breaker = AccountBreaker(clock)
    for _ in range(10):
        breaker.succeeded(2)
        assert breaker.failed(1, [1, 2]) is None
        clock.now += 20


def test_never_more_than_half_of_the_accounts_rest(clock: Clock) -> None:
    breaker = AccountBreaker(clock)
    pool = [1, 2, 3, 4]
    breaker.succeeded(4)

    rests = [[breaker.failed(account, pool) for _ in range(5)][-1] for account in (1, 2, 3)]

    assert [rest is not None for rest in rests] == [True, True, False]


def test_the_memory_of_rests_fades_by_one_a_healthy_minute(clock: Clock) -> None:
    breaker = AccountBreaker(clock)
    for _ in range(2):
        breaker.succeeded(2)
        for _ in range(5):
            breaker.failed(1, [1, 2])
        clock.now += 80
    for _ in range(3):
        clock.now += 61
        breaker.succeeded(1)
        breaker.succeeded(2)

    rest = [breaker.failed(1, [1, 2]) for _ in range(5)][-1]

    assert rest is not None
    assert rest <= 36


def test_a_healthy_upstream_gets_everything(clock: Clock) -> None:
    host = HostBreaker(clock, lambda: 0.0)
    for number in range(100):
        assert host.admits()
        host.saw(accepted=number % 3 > 0)


def test_an_upstream_that_refuses_most_gets_less(clock: Clock) -> None:
    host = HostBreaker(clock, lambda: 0.5)
    for number in range(100):
        host.saw(accepted=number % 10 == 0)

    assert host.admits()
    assert not host.admits()


def test_after_ten_failures_to_connect_one_request_a_second_passes(clock: Clock) -> None:
    host = HostBreaker(clock, lambda: 0.99)
    for _ in range(10):
        host.saw(accepted=False, connected=False)

    assert [host.admits() for _ in range(3)] == [True, False, False]
    clock.now += 1
    assert host.admits()
    host.saw(accepted=True)
    assert host.admits()


def test_looking_takes_nobodys_turn(clock: Clock) -> None:
    host = HostBreaker(clock, lambda: 0.99)
    for _ in range(10):
        host.saw(accepted=False, connected=False)

    assert [(host.refuses(), host.has_turn()) for _ in range(3)] == [(True, True)] * 3
    assert [host.takes_turn(), host.takes_turn(), host.has_turn()] == [True, False, False]
    clock.now += 1
    assert host.has_turn()


def test_each_success_halves_what_is_held_against_the_upstream(clock: Clock) -> None:
    host = HostBreaker(clock, lambda: 0.3)
    for _ in range(100):
        host.saw(accepted=False)
    assert [host.admits() for _ in range(2)] == [True, False]

    for _ in range(8):
        host.saw(accepted=True)

    assert host.admits()
    assert host.admits()


def test_a_handful_of_failures_proves_nothing(clock: Clock) -> None:
    host = HostBreaker(clock, lambda: 0.0)
    for _ in range(5):
        host.saw(accepted=False)

    assert host.admits()
    assert host.admits()


def test_what_happened_long_ago_is_forgotten(clock: Clock) -> None:
    host = HostBreaker(clock, lambda: 0.0)
    for _ in range(50):
        host.saw(accepted=False)
    clock.now += 121

    assert host.admits()
    assert host.admits()


def test_so_are_connections_that_failed_long_ago(clock: Clock) -> None:
    host = HostBreaker(clock, lambda: 0.99)
    for _ in range(10):
        host.saw(accepted=False, connected=False)
        clock.now += 600

    assert [host.admits() for _ in range(3)] == [True, True, True]
