"""What the relay itself answers when a request cannot be served.

    RelayError                      code, HTTP status and error type of the body
    ├── BadRequest    400           the request is not one the API would take
    ├── ClientAuth    401           the relay key is missing, wrong or revoked
    ├── Forbidden     403           the key is good, but not for this
    ├── SessionRevoked    403       the session was revoked
    ├── NotFound      404           not an address of the relay
    ├── Method        405
    ├── BodyTimeout   408           the body took too long to arrive
    ├── TooLarge      413
    ├── Encoding      415
    ├── HeadersTooLarge    431
    ├── PoolLimited   429           every account waits for a limit to end
    ├── KeyLimit      429           the key has to wait
    ├── SessionLimit  429           the client has all the sessions it may have
    ├── BudgetSpent   429           the key's budget is used up
    ├── UpstreamConnect, UpstreamProtocol    502
    ├── PoolUnavailable, UpstreamUnavailable, UpstreamBlocked, Draining    503
    ├── LimiterUnavailable    503   limits cannot be counted, and are to hold
    ├── Orphaned      503           what was asked for is made, but nobody may see it
    ├── UpstreamTimeout    504
    └── ClientGone    499           nobody is left to answer

A message never names an account, a host or anything else of the inside.
"""

from __future__ import annotations

import orjson

Header = tuple[bytes, bytes]


class RelayError(Exception):
    """A refusal by the relay. `retry_after` is in whole seconds; `final` tells clients to stop."""

    status = 500
    code = "internal"
    type = "api_error"
    final = False
    message = "The relay could not serve this request."

    def __init__(
        self, message: str = "", *, code: str = "", retry_after: int | None = None
    ) -> None:
        super().__init__(message or self.message)
        self.code = code or self.code
        # A 503 of ours is worth another try soon; the client's own back-off is longer than ours.
        self.retry_after = retry_after or (5 if self.status == 503 else None)

    def headers(self) -> list[Header]:
        """Return the answer's headers without its length."""
        headers = [(b"content-type", b"application/json"), (b"x-relay-error", self.code.encode())]
        if self.final:
            headers.append((b"x-should-retry", b"false"))
        if self.retry_after is not None:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        return headers

    def body(self, request_id: str) -> bytes:
        """Return the answer's body, in the shape of the API's own errors."""
        return error_body(self.type, str(self), request_id)


def error_body(type_: str, message: str, request_id: str) -> bytes:
    """Return an error in the shape of the API's own."""
    error = {"type": type_, "message": message}
    return orjson.dumps({"type": "error", "error": error, "request_id": request_id})


class BadRequest(RelayError):
    """The request is not one the API would take."""

    status, code, type, final = 400, "bad_request", "invalid_request_error", True


class ClientAuth(RelayError):
    """Missing, wrong, expired and revoked keys all get this, word for word."""

    # Without `x-should-retry: false` Claude Code repeats a 401 for three minutes.
    status, code, type, final = 401, "client_auth", "authentication_error", True
    message = "Invalid relay key. Ask the operator of this relay for a key."


class Forbidden(RelayError):
    """The key is good, but not for this model, or not from here."""

    status, code, type, final = 403, "forbidden", "permission_error", True
    message = "This key may not be used for that."


class SessionRevoked(RelayError):
    """The session was revoked by an operator."""

    # Claude Code does not repeat a 403: it shows the message and stops.
    status, code, type, final = 403, "session_revoked", "permission_error", True
    message = "This session was ended by the operator of this relay. Start a new one."


class NotFound(RelayError):
    """Not an address that the relay serves."""

    status, code, type, final = 404, "not_found", "not_found_error", True
    message = "This relay does not serve that address."


class Method(RelayError):
    """The address is served, but not by this method."""

    status, code, type, final = 405, "method", "invalid_request_error", True
    message = "This address does not take that method."


class BodyTimeout(RelayError):
    """The request's body did not arrive in time."""

    status, code, type = 408, "body_timeout", "invalid_request_error"
    message = "The request took too long to arrive."


class TooLarge(RelayError):
    """The request's body is over the API's own limit."""

    status, code, type, final = 413, "too_large", "request_too_large", True
    message = "Request exceeds the maximum size of 32 MB."


class Encoding(RelayError):
    """The request's body is compressed."""

    status, code, type, final = 415, "encoding", "invalid_request_error", True
    message = "Send the request's body without Content-Encoding."


class HeadersTooLarge(RelayError):
    """The request's head is over the limit."""

    status, code, type, final = 431, "headers", "invalid_request_error", True
    message = "The request has too many headers, or too long ones."


class PoolLimited(RelayError):
    """Every account that could serve waits for a limit to end; `retry_after` says how long."""

    status, code, type = 429, "pool_limited", "rate_limit_error"
    message = "All accounts of this relay are rate limited for now."


class KeyLimit(RelayError):
    """This key has to wait before its next request."""

    status, code, type, final = 429, "key_limit", "rate_limit_error", True
    message = "Requests of this key were refused by several accounts; it is paused for a moment."


class SessionLimit(RelayError):
    """The client has all the sessions it may have; `retry_after` is when one may be free."""

    status, code, type, final = 429, "session_limit", "rate_limit_error", True
    message = "Too many sessions at a time with this key. End one, or wait until one was idle."


class BudgetSpent(RelayError):
    """The key's budget is used up; `retry_after` is when its next period begins."""

    status, code, type, final = 429, "budget", "billing_error", True
    message = "The budget of this key is used up."


class UpstreamConnect(RelayError):
    """No connection to the upstream."""

    status, code = 502, "upstream_connect"
    message = "The relay could not connect to the API."


class UpstreamProtocol(RelayError):
    """The upstream broke off, or answered what is not an answer."""

    status, code = 502, "upstream_protocol"
    message = "The API's answer to the relay could not be used."


class PoolUnavailable(RelayError):
    """No account can serve, and time alone will not change that."""

    status, code = 503, "pool_unavailable"
    message = "No account of this relay can serve this request now."


class Orphaned(RelayError):
    """The upstream has made a thing that the relay could not bind to its key."""

    # Whoever repeats it pays twice.
    status, code, final = 503, "pool_unavailable", True
    message = "It was created, but this relay could not remember it. Tell its operator."


class UpstreamUnavailable(RelayError):
    """The upstream fails for everybody; the relay spares it."""

    status, code = 503, "upstream_unavailable"
    message = "The API is failing for now."


class UpstreamBlocked(RelayError):
    """The upstream's edge refuses this relay, whatever the account."""

    status, code = 503, "upstream_blocked"
    message = "The API refuses connections from this relay."


class Draining(RelayError):
    """The process is about to stop."""

    status, code = 503, "draining"
    message = "The relay is restarting."


class LimiterUnavailable(RelayError):
    """Limits cannot be counted now, and the operator wants new sessions refused then."""

    status, code = 503, "limiter_unavailable"
    message = "The relay cannot admit new sessions now."


class UpstreamTimeout(RelayError):
    """The upstream did not begin to answer in time."""

    status, code = 504, "upstream_timeout"
    message = "The API did not answer in time."


class ClientGone(RelayError):
    """The client hung up; recorded, never sent."""

    status, code = 499, "client_gone"
    message = "The client closed the connection."
