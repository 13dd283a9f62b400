"""Accounts, a client and a receiver of alerts that live through days in seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management.color import no_style
from django.db import connection

from accounts import tokens
from accounts.models import Account
from lib import db, snapshot
from lib.redis import for_jobs
from relay import effects, outcomes
from tests.support.inbox import Inbox, listening


@pytest.fixture
def inbox(settings: Any) -> Iterator[Inbox]:
    with listening() as inbox:
        yield inbox


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    outcomes.reset()
    yield
    outcomes.reset()
    db.reset()
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()


@pytest.fixture(autouse=True)
def _numbered_from_one(transactional_db: None) -> None:
    """When an account is refreshed and checked depends on its number."""
    places = [{"table": Account._meta.db_table, "column": "id"}]
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_by_name_sql(no_style(), places):
            cursor.execute(statement)


@pytest.fixture(autouse=True)
def _quick_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused refresh is looked at again at once: the wait for it would be real."""
    monkeypatch.setattr(tokens, "CONFIRM_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the relay goes on without a probe, or with an older view; not here."""
    monkeypatch.setattr(effects, "PROBE_PATIENCE", 30.0)
    monkeypatch.setattr(snapshot, "SHORT_PATIENCE", 30.0)
