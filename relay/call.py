"""One request with the address it came to, as the walks beside the one of messages take it."""

from __future__ import annotations

from dataclasses import dataclass

from relay.endpoints import Endpoint
from relay.request import ClientRequest
from relay.uploads import Upload


@dataclass(frozen=True, slots=True)
class Call:
    """A client's request; `base` is the relay's own address as this client knows it.

    The body of a creation is not in the request: it passes through `upload`.
    """

    request: ClientRequest
    endpoint: Endpoint
    base: str
    upload: Upload | None = None
