"""An answer that the relay makes itself, in the shape in which an upstream's is delivered."""

from __future__ import annotations

from dataclasses import dataclass

from providers.base import Limits
from relay.answer import Answer
from relay.upstream.base import Headers

JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Whole:
    """A response without a connection; its body is in the answer."""

    status: int
    headers: Headers

    async def read(self) -> bytes:
        """Return the end: there is nothing more."""
        return b""

    def close(self) -> None:
        """Do nothing: nothing is open."""


def json(body: bytes) -> Answer:
    """Return a successful answer with a body of JSON."""
    return Answer(Whole(200, (JSON,)), Limits(), head=body, ended=True)
