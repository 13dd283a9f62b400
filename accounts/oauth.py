"""Claude's OAuth endpoints: the only file that knows them, and the door for their errors.

What a login may read about itself is read elsewhere (`profile_endpoint.py`).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any
from urllib.parse import parse_qsl

import httpx2
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oauth2.client import OAuth2Client
from django.conf import settings
from django.utils import timezone

from accounts import answers
from lib import http

SHORTEST, LONGEST, USUAL = 60, 31_536_000, 3600
NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
FINAL_ERRORS = frozenset({"invalid_grant", "invalid_client", "unauthorized_client"})
CODE = re.compile(r"[a-z_]{1,40}")
VISIBLE = re.compile(r"[\x21-\x7e]{1,8192}")
# A gateway gives these when the endpoint behind it may well have done the work.
MAYBE_DONE = frozenset({200, 408, 500, 502, 504})


class Refusal(Enum):
    """What an answer without a token means for the refresh token that was sent."""

    FINAL = auto()
    GONE = auto()
    TRANSIENT = auto()
    UNKNOWN = auto()


class TokenEndpointError(Exception):
    """The token endpoint answered, and not with a token."""

    def __init__(
        self, status: int, error: str, description: str = "", retry_after: str | None = None
    ) -> None:
        super().__init__(f"{status} {error}")
        self.status, self.error, self.description = status, error, description
        self.retry_after = retry_after

    @property
    def refusal(self) -> Refusal:
        """Tell a dead login from a busy or confused endpoint (relay rules, section 5)."""
        if self.status in (400, 401) and self.error in FINAL_ERRORS:
            return Refusal.FINAL
        if self.status == 404 and self.error.startswith("not_found"):
            return Refusal.GONE
        return Refusal.UNKNOWN if self.status in MAYBE_DONE else Refusal.TRANSIENT


class OutcomeUnknown(Exception):
    """Nothing came back. `sent` False: the request cannot have reached the endpoint."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Grant:
    """What the token endpoint gave; texts that were not given are empty.

    `refresh_token` None: none came. `scopes` are separated by spaces. `grant_ends_at` is the end of
    the whole login, where the endpoint said it.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: datetime | None
    scopes: str = ""
    grant_ends_at: datetime | None = None
    account_uuid: str = ""
    email: str = ""
    organization_uuid: str = ""
    organization_name: str = ""


def authorize_url(state: str, verifier: str) -> str:
    """Return the address where the owner approves the login."""
    config = settings.CONFIG
    client = OAuth2Client(None, client_id=config.oauth_client_id, code_challenge_method="S256")
    url, _ = client.create_authorization_url(
        config.oauth_authorize_url,
        state=state,
        code_verifier=verifier,
        redirect_uri=config.oauth_redirect_uri,
        scope=config.oauth_scopes,
        code="true",
    )
    return str(url)


async def exchange(code: str, verifier: str, state: str) -> Grant:
    """Turn a code into tokens; raise TokenEndpointError or OutcomeUnknown."""
    config = settings.CONFIG
    async with _TokenClient() as client:
        call = client.fetch_token(
            config.oauth_token_url,
            grant_type="authorization_code",
            code=code,
            code_verifier=verifier,
            redirect_uri=config.oauth_redirect_uri,
            auth=client.client_auth(_json_body(state=state)),
        )
        grant: Grant = await client.ask(call)
    return grant


async def renew(refresh_token: str, *, proxy: str = "") -> Grant:
    """Rotate a refresh token, once; raise TokenEndpointError or OutcomeUnknown."""
    async with _TokenClient(proxy) as client:
        call = client.refresh_token(
            settings.CONFIG.oauth_token_url,
            refresh_token=refresh_token,
            auth=client.client_auth(_json_body()),
        )
        grant: Grant = await client.ask(call)
    return grant


class _TokenClient(AsyncOAuth2Client):  # type: ignore[misc]
    """Authlib's client for one call: JSON bodies, and the answer kept as it came."""

    def __init__(self, proxy: str = "") -> None:
        super().__init__(
            client_id=settings.CONFIG.oauth_client_id,
            token_endpoint_auth_method="none",
            **http.options(proxy),
        )
        self.answer: dict[str, Any] | None = None
        for hook in ("access_token_response", "refresh_token_response"):
            self.register_compliance_hook(hook, self._judge)

    async def ask(self, call: Awaitable[object]) -> Grant:
        # The client's time-outs are per operation; only this one bounds the whole call.
        try:
            async with asyncio.timeout(http.TOTAL_SECONDS):
                await call
        except TokenEndpointError:
            raise
        except httpx2.HTTPError as error:
            sent = not isinstance(error, NOT_SENT)
            raise OutcomeUnknown(type(error).__name__, sent=sent) from None
        except TimeoutError:
            raise OutcomeUnknown("TimeoutError", sent=True) from None
        except (ValueError, TypeError, OverflowError) as error:
            if self.answer is None:
                raise OutcomeUnknown(type(error).__name__, sent=True) from None
        if self.answer is None:
            raise OutcomeUnknown("no answer", sent=True)
        return _grant(self.answer, timezone.now())

    def _judge(self, response: httpx2.Response) -> httpx2.Response:
        data = answers.parse(response)
        if response.status_code == 200 and is_header_safe(data.get("access_token")):
            # Kept before Authlib looks at it: an odd expires_in makes Authlib raise, and a
            # rotated pair would be lost.
            self.answer = data
            return response
        error, text = data.get("error"), data.get("error_description")
        if isinstance(error, dict):
            text, error = error.get("message"), error.get("type")
        raise TokenEndpointError(
            response.status_code,
            # Only a code goes on into logs and events, never a text that could repeat a secret.
            error if isinstance(error, str) and CODE.fullmatch(error) else "unknown",
            answers.text(text, 200),
            response.headers.get("retry-after"),
        )


def is_header_safe(value: object) -> bool:
    """Tell whether a secret can stand in a header: visible ASCII and nothing else."""
    return isinstance(value, str) and VISIBLE.fullmatch(value) is not None


def _json_body(**extra: str) -> Callable[..., tuple[str, Any, bytes]]:
    """Return the client-auth method that makes one JSON object of the form Authlib built."""

    def sign(
        client: Any, method: str, uri: str, headers: Any, body: bytes | str
    ) -> tuple[str, Any, bytes]:
        form = body.decode() if isinstance(body, bytes) else body
        fields = dict(parse_qsl(form, keep_blank_values=True)) | {"client_id": client.client_id}
        # Lower case, or the form's own content type is sent as well.
        headers["content-type"] = "application/json"
        return uri, headers, json.dumps(fields | extra).encode()

    return sign


def _grant(answer: dict[str, Any], now: datetime) -> Grant:
    refresh_token = answer.get("refresh_token")
    account, organization = answers.part(answer, "account"), answers.part(answer, "organization")
    end = _seconds(answer.get("refresh_token_expires_in"))
    return Grant(
        access_token=answer["access_token"],
        refresh_token=refresh_token if is_header_safe(refresh_token) else None,
        expires_at=now + timedelta(seconds=_seconds(answer.get("expires_in")) or USUAL),
        scopes=answers.text(answer.get("scope"), 500),
        grant_ends_at=now + timedelta(seconds=end) if end else None,
        account_uuid=answers.text(account.get("uuid"), 64),
        email=answers.text(account.get("email_address")),
        organization_uuid=answers.text(organization.get("uuid"), 64),
        organization_name=answers.text(organization.get("name")),
    )


def _seconds(value: object) -> int | None:
    """Return a believable number of seconds, else None."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if SHORTEST <= value <= LONGEST else None
