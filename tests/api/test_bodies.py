"""What is too large for Django is refused before any of it is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy_project.bodies import only_small_bodies

LIMIT = 2_621_440


async def _answered(*headers: tuple[bytes, bytes]) -> int:
    """Return the status of the refusal, 200 if the request got through."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> None:
        pytest.fail("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    await only_small_bodies(app)({"headers": list(headers)}, receive, send)
    status = int(sent[0]["status"])
    if status != 200:
        assert json.loads(sent[1]["body"])["status"] == status
    return status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 200),
        ([(b"content-length", b"0")], 200),
        ([(b"content-length", b"%d" % LIMIT)], 200),
        ([(b"content-length", b"%d" % (LIMIT + 1))], 413),
        ([(b"content-length", b"9" * 5000)], 413),
        ([(b"content-length", b"%020d" % (LIMIT + 1))], 413),
        ([(b"content-length", b"%020d" % LIMIT)], 200),
        ([(b"transfer-encoding", b"chunked")], 411),
        ([(b"transfer-encoding", b"chunked"), (b"content-length", b"1")], 411),
    ],
)
async def test_only_small_and_measured_bodies_pass(
    headers: list[tuple[bytes, bytes]], status: int
) -> None:
    assert await _answered(*headers) == status
