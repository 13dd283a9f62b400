"""The job that asks for lists of models runs once a minute, however many beats there are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from lib.redis import for_jobs
from relay import model_lists

NOW = datetime(2027, 3, 1, 9, 0, 20, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _empty_valkey() -> Iterator[None]:
    yield
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()


def test_a_minute_is_claimed_once() -> None:
    assert model_lists.claim(NOW)
    assert not model_lists.claim(NOW)
    assert not model_lists.claim(NOW + timedelta(seconds=39))
    assert model_lists.claim(NOW + timedelta(seconds=40))
