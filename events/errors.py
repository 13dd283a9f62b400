"""Why a channel or a rule cannot be as it was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import IntegrityError


class Refused(Exception):
    """A channel or rule cannot be so; `field` is what to change, empty if nothing helps."""

    def __init__(self, field: str, text: str) -> None:
        self.field = field
        super().__init__(text)


@contextmanager
def unique_name() -> Iterator[None]:
    """Raise Refused where the database refuses a name that is taken."""
    try:
        yield
    except IntegrityError:
        raise Refused("name", "Another one has this name.") from None
