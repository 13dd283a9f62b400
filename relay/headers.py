"""Which headers cross the relay, in either direction; everything else stays on its side."""

from __future__ import annotations

from collections.abc import Iterable

RawHeaders = Iterable[tuple[bytes, bytes]]

TO_UPSTREAM = frozenset({"content-type", "user-agent", "x-app"})
TO_UPSTREAM_PREFIXES = ("anthropic-", "x-stainless-", "x-claude-code-", "accept")
TO_CLIENT = frozenset(
    {
        b"request-id",
        b"retry-after",
        b"x-should-retry",
        b"content-type",
        b"content-encoding",
        b"content-disposition",
        b"cache-control",
    }
)
VERSION = ("anthropic-version", "2023-06-01")


def to_upstream(headers: RawHeaders) -> list[tuple[str, str]]:
    """Return the client's headers that go upstream, in their order; credentials never do.

    The upstream is asked for `identity`: the relay reads usage from the stream as it passes.
    """
    kept = [
        (name.decode("latin-1"), _text(value))
        for name, value in headers
        if _goes_up(name.decode("latin-1"))
    ]
    if not any(name == VERSION[0] for name, _ in kept):
        kept.append(VERSION)
    kept.append(("accept-encoding", "identity"))
    return kept


def _text(value: bytes) -> str:
    """Return a value as the HTTP client takes it, which writes UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def to_client(headers: RawHeaders, *, with_length: bool = False) -> list[tuple[bytes, bytes]]:
    """Return the upstream's headers that a client may see: none that speak of the account."""
    shown = TO_CLIENT | {b"content-length"} if with_length else TO_CLIENT
    return [(name.lower(), value) for name, value in headers if name.lower() in shown]


def _goes_up(name: str) -> bool:
    if name == "accept-encoding":
        return False
    return name in TO_UPSTREAM or name.startswith(TO_UPSTREAM_PREFIXES)
