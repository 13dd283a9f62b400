"""How the API takes a body."""

from __future__ import annotations

from ninja import Schema


class Refusing(Schema):
    """A body that is taken as it is: unknown fields are errors, and "7" or true is no number."""

    model_config = {"extra": "forbid", "strict": True}
