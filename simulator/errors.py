"""The errors an endpoint raises, and the JSON bodies the real API gives them."""

from __future__ import annotations

from typing import Any

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
MESSAGES = {
    429: "This request would exceed your account's rate limit. Please try again later.",
    500: "Internal server error",
    529: "Overloaded",
}


class ApiError(Exception):
    """An error of the API proper; becomes `{"type": "error", "error": {...}, "request_id"}`."""

    def __init__(self, status: int, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


class GrantError(Exception):
    """An error of the token endpoint in OAuth's own shape: `{"error", "error_description"}`."""

    def __init__(self, outcome: str, error: str, description: str) -> None:
        super().__init__(description)
        self.outcome = outcome
        self.error = error
        self.description = description


class FormatError(Exception):
    """A token request with a missing, mistyped or unexpected field."""


class EdgeRefusal(Exception):
    """The network edge turned the caller away before the API saw it: an HTML page."""


def error_body(status: int, message: str | None, request_id: str) -> dict[str, Any]:
    """Return the API's error object for a status; a missing message gets the usual one."""
    kind = TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    text = message if message is not None else MESSAGES.get(status, kind)
    return {
        "type": "error",
        "error": {"type": kind, "message": text},
        "request_id": request_id,
    }
