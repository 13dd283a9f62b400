"""No large body reaches Django, which would put any amount on the disk before it looks at it."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from lib import problems

UNMEASURED = "Say how long the body is, by Content-Length."


def only_small_bodies(application: Any) -> Any:
    """Return the app; a body too large, or of a length nobody tells, is refused unread."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        largest = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if b"transfer-encoding" in headers:
            await _refuse(send, 411, UNMEASURED)
        elif _length(headers) > largest:
            await _refuse(send, 413, f"The body is larger than {largest} bytes.")
        else:
            await application(scope, receive, send)

    return app


def _length(headers: dict[bytes, bytes]) -> int:
    text = headers.get(b"content-length", b"0")
    # The server refuses what is no number; what has ten digits is too large in any case, but zeros
    # before them say nothing.
    return int(text.lstrip(b"0")[:10] or b"0") if text.isdigit() else 0


async def _refuse(send: Any, status: int, detail: str) -> None:
    body = problems.body(status, detail)
    headers = [
        (b"content-type", problems.MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
