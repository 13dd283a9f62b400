"""What the account pages' tests leave behind: no thread with a connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User

from lib import db


@pytest.fixture
def admin_user(db: None) -> User:
    """An operator without a password: hashing one takes longer than a page."""
    return User.objects.create(username="admin", is_staff=True, is_superuser=True)


@pytest.fixture(autouse=True)
def _ends_database_threads() -> Iterator[None]:
    yield
    db.reset()
