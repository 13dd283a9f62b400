"""Only a trusted proxy may speak for its client."""

from __future__ import annotations

from typing import Any

import pytest

from proxy_project.forwarded import is_trusted, only_from_proxies

HEADERS = [
    (b"host", b"x"),
    (b"x-forwarded-for", b"1.2.3.4"),
    (b"x-forwarded-proto", b"https"),
    (b"forwarded", b"for=1.2.3.4"),
    (b"x-real-ip", b"1.2.3.4"),
]


async def _seen(peer: str) -> list[bytes]:
    names: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        names.extend(name for name, _ in scope["headers"])

    scope = {"type": "http", "client": (peer, 1), "headers": HEADERS}
    await only_from_proxies(app)(scope, None, None)
    return names


@pytest.fixture(autouse=True)
def _proxies(settings: Any) -> None:
    networks = ("10.0.0.0/8", "::1")
    settings.CONFIG = settings.CONFIG.model_copy(update={"trusted_proxies": networks})


@pytest.mark.parametrize("peer", ["10.1.2.3", "::1"])
async def test_a_trusted_proxy_is_believed(peer: str) -> None:
    assert await _seen(peer) == [name for name, _ in HEADERS]


@pytest.mark.parametrize("peer", ["127.0.0.1", "11.0.0.1", "::2", "unix", ""])
async def test_of_anybody_else_nothing_is_believed(peer: str) -> None:
    assert await _seen(peer) == [b"host"]


def test_without_proxies_nobody_is_trusted(settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"trusted_proxies": ()})

    assert not is_trusted(("127.0.0.1", 1))
    assert not is_trusted(None)
