"""What the pages of keys and sessions need: an operator, a key, a Valkey that remembers nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from lib.redis import for_jobs
from sessions_limit import keys, presence
from sessions_limit.models import ClientKey, ClientSession

Begin = Callable[..., ClientSession]


@pytest.fixture
def admin_user(db: None) -> User:
    """An operator without a password: hashing one takes longer than a page."""
    return User.objects.create(username="admin", is_staff=True, is_superuser=True)


@pytest.fixture
def key(db: None) -> ClientKey:
    return keys.create("laptop", by="anna")[0]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begin sessions as the record has them, with what web processes tell of them."""
    with contextlib.closing(for_jobs()) as client:
        client.flushdb()

        def begun(key: ClientKey, session: str, under_way: str = "", **columns: Any) -> Any:
            now = timezone.now()
            base = {"client": f"key:{key.pk}", "started_at": now - timedelta(hours=1)}
            base |= {"last_seen_at": now, "address": "203.0.113.5"} | columns
            uid = f"{ClientSession.objects.count():016x}"
            row = ClientSession.objects.create(uid=uid, key=key, session=session, **base)
            if under_way:
                client.sadd(presence.PROCESSES, "web")
                told = {presence.SESSION + row.name: under_way}
                client.hset(f"{presence.PROCESSES}:web", mapping=told)
            return row

        yield begun
        client.flushdb()
