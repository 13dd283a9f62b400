"""Which headers cross the relay, in either direction; everything else stays on its side."""

from __future__ import annotations

from collections.abc import Iterable

RawHeaders = Iterable[tuple[bytes, bytes]]

TO_UPSTREAM = frozenset({"content-type", "user-agent", "x-app"})
TO_UPSTREAM_PREFIXES = ("anthropic-", "x-stainless-", "x-claude-code-", "accept")
CREDENTIALS = frozenset({"authorization", "x-api-key"})
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


def to_upstream(headers: RawHeaders, *, own_login: bool = False) -> list[tuple[str, str]]:
    """Return the client's headers that go upstream, in their order.

    Credentials are not among them, unless the client sent its `own_login`. The upstream is asked
    for `identity`: the relay reads usage from the stream as it passes.
    """
    kept = []
    for given, value in headers:
        name = given.decode("latin-1")
        if _goes_up(name) or (own_login and name in CREDENTIALS):
            kept.append((name, _text(value)))
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


def to_client(
    headers: RawHeaders, *, with_length: bool = False, own_login: bool = False
) -> list[tuple[bytes, bytes]]:
    """Return the upstream's headers that a client may see.

    None of them speaks of the account, unless it was the client's `own_login` that went up.
    """
    shown = TO_CLIENT | {b"content-length"} if with_length else TO_CLIENT
    return [
        (name, value)
        for name, value in ((given.lower(), value) for given, value in headers)
        if name in shown or (own_login and name.startswith(b"anthropic-"))
    ]


def _goes_up(name: str) -> bool:
    if name == "accept-encoding":
        return False
    return name in TO_UPSTREAM or name.startswith(TO_UPSTREAM_PREFIXES)
