"""What the account pages' tests leave behind: no thread with a connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lib import db


@pytest.fixture(autouse=True)
def _ends_database_threads() -> Iterator[None]:
    yield
    db.reset()
