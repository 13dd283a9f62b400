"""However many sessions come at once, over however many processes, there are as many as may be."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from lib.redis import for_jobs
from sessions_limit import limiter
from tests.support.door import Door

MOST = 3
# Until then both processes have their wish.
SOON = 0.03


@pytest.fixture(scope="module")
def doors() -> Iterator[tuple[Door, Door]]:
    settings = {"SESSION_LIMIT": "on", "SESSION_MAX_CONCURRENT": str(MOST)}
    settings |= {"SESSION_MAX_IN_FLIGHT": "-1", "CLIENT_MAX_IN_FLIGHT": "-1"}
    both = Door(**settings), Door(**settings)
    yield both
    for door in both:
        door.end()
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()


def test_of_a_hundred_sessions_at_once_over_two_processes_three_are_admitted(
    doors: tuple[Door, Door],
) -> None:
    for key in range(1001, 1006):
        at = time.time() + SOON
        for name, door in zip("ab", doors, strict=True):
            door.begin(key, [f"{name}{number}" for number in range(50)], at)

        answers = [answer for door in doors for answer in door.answers()]

        assert len(answers) == 100
        assert answers.count("Full") == 100 - MOST
        assert _count(f"sessions:client:key:{key}") == MOST


def test_a_hundred_first_requests_of_a_session_over_two_processes_are_one_on_one_account(
    doors: tuple[Door, Door],
) -> None:
    turns = _turns()
    for key in range(1101, 1106):
        at = time.time() + SOON
        for door in doors:
            door.begin(key, ["one"] * 50, at)

        answers = [tuple(answer) for door in doors for answer in door.answers()]

        assert len(answers) == 100
        assert len(set(answers)) == 1
        assert _count(f"sessions:client:key:{key}") == 1
    assert _turns() == turns + 5


def _count(scope: str) -> int:
    with contextlib.closing(for_jobs()) as client:
        return int(client.zcard(scope))


def _turns() -> int:
    with contextlib.closing(for_jobs()) as client:
        return int(client.get(limiter.TURNS) or 0)
