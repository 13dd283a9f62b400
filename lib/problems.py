"""Errors of the API as problem JSON (RFC 9457)."""

from __future__ import annotations

import json
from http import HTTPStatus

from django.http import HttpResponse
from ninja import Field, Schema

MEDIA_TYPE = "application/problem+json"


class Problem(Schema):
    """What went wrong, for programs (`status`, `errors`) and for people (`detail`)."""

    type: str = Field(description="Always about:blank: the status says what kind of problem it is.")
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What went wrong and what to do, in plain English.")
    errors: dict[str, str] | None = Field(None, description="What is wrong, per field (422 only).")


def response(
    status: int,
    detail: str,
    *,
    errors: dict[str, str] | None = None,
    retry_after: int | None = None,
) -> HttpResponse:
    """Return the answer for one problem."""
    answer = HttpResponse(
        body(status, detail, errors=errors), status=status, content_type=MEDIA_TYPE
    )
    if retry_after is not None:
        answer["Retry-After"] = str(retry_after)
    return answer


def body(status: int, detail: str, *, errors: dict[str, str] | None = None) -> bytes:
    """Return one problem as JSON."""
    title = HTTPStatus(status).phrase
    told = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return json.dumps(told | ({"errors": errors} if errors else {})).encode()


def documented(*statuses: int) -> dict[int, type[Problem]]:
    """Return the problems an operation may answer; those of every operation are always among them.

    For its `response=`, beside what it answers when all is well.
    """
    return dict.fromkeys((400, 401, 403, 413, 415, 422, 500, 503, *statuses), Problem)
