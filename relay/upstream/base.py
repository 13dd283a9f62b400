"""What the relay needs of an HTTP client: one attempt, its bytes, and how it failed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]
# Whole, or as it comes; the latter can be sent once only.
Body = bytes | AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Route:
    """How an upstream is reached: by which proxy, if any.

    `is_guarded` is for addresses that somebody has typed: what may not be reached (lib/outside.py)
    is not connected to, whatever its name resolves to. A proxy resolves names itself.
    """

    proxy: str = field(default="", repr=False)
    is_guarded: bool = False


DIRECT = Route()


class Failure(Exception):
    """An attempt that brought no (whole) answer."""


class NotConnected(Failure):
    """Nothing was sent: name, connection or TLS failed."""


class ProxyFailed(Failure):
    """Nothing was sent: no connection came about by the account's proxy."""


class Stale(Failure):
    """A kept-alive connection turned out to be closed before a byte of the answer came."""


class Lost(Failure):
    """The connection broke after something was sent."""


class Response(Protocol):
    """An answer whose head has come."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Headers:
        """The headers as they came."""

    async def read(self) -> bytes:
        """Return the next bytes as they came, b"" at the regular end; raise Lost when it breaks."""

    def close(self) -> None:
        """Give the connection back if the body was read to its end, close it otherwise."""


class Upstream(Protocol):
    """Makes attempts."""

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: Body,
        *,
        fresh: bool = False,
        route: Route = DIRECT,
    ) -> Response:
        """Return the answer to one attempt; raise a Failure. `fresh` asks for a new connection."""
