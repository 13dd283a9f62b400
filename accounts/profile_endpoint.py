"""Reads whose login an access token is: the profile endpoint, and the door for its errors."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx2
from django.conf import settings
from django.utils import timezone

from accounts import answers, waits
from lib import http

PATH = "/api/oauth/profile"
DISABLED = (
    "organization has been disabled",
    "oauth authentication is currently not allowed",
)
ON_HOLD = "organization_on_hold"
NO_SCOPE = "does not meet scope requirement"


class ProfileUnreadable(Exception):
    """No profile came; ask again later.

    `status` None: nothing was answered. `retry_after` is in seconds, 0 if nothing was asked for.
    """

    def __init__(self, why: str, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.status, self.retry_after = status, retry_after


class ProfileForbidden(ProfileUnreadable):
    """The login was given without the right to read its profile."""


class OrganizationRefused(ProfileUnreadable):
    """Anthropic has disabled the organisation, or does not allow its logins here."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Whose login it is; `plan` is "pro", "max", "team" or "enterprise", `tier` opaque."""

    account_uuid: str
    organization_uuid: str
    email: str = ""
    organization_name: str = ""
    plan: str = ""
    tier: str = ""
    subscription_status: str = ""


async def read(access_token: str, *, proxy: str = "") -> Profile:
    """Read whose login an access token is; raise ProfileUnreadable or one of its kinds."""
    url = settings.CONFIG.upstream_base_url + PATH
    try:
        async with asyncio.timeout(http.TOTAL_SECONDS), http.client(proxy=proxy) as client:
            headers = {"authorization": f"Bearer {access_token}"}
            async with client.stream("GET", url, headers=headers) as response:
                data = await answers.read(response) or {}
    # A proxy can fail in ways that the client does not translate.
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise ProfileUnreadable(type(error).__name__) from None
    if response.status_code != 200:
        raise _refusal(response, data)
    account, organization = answers.part(data, "account"), answers.part(data, "organization")
    found = Profile(
        account_uuid=answers.text(account.get("uuid"), 64),
        organization_uuid=answers.text(organization.get("uuid"), 64),
        email=answers.text(account.get("email")),
        organization_name=answers.text(organization.get("name")),
        plan=answers.text(organization.get("organization_type"), 32).removeprefix("claude_"),
        tier=answers.text(organization.get("rate_limit_tier"), 64),
        subscription_status=answers.text(organization.get("subscription_status"), 32),
    )
    if not found.account_uuid:
        raise ProfileUnreadable("no account in the answer", response.status_code)
    return found


def _refusal(response: httpx2.Response, data: dict[str, Any]) -> ProfileUnreadable:
    """Say what an answer that is no profile means (relay rules D09, D11d)."""
    status, error = response.status_code, answers.part(data, "error")
    message = answers.text(error.get("message"), 500).lower()
    is_on_hold = answers.part(error, "details").get("error_code") == ON_HOLD
    if is_on_hold or any(text in message for text in DISABLED):
        return OrganizationRefused(f"status {status}", status)
    if status == 403 and NO_SCOPE in message:
        return ProfileForbidden("status 403", status)
    asked = waits.retry_after(response.headers.get("retry-after"), timezone.now())
    return ProfileUnreadable(f"status {status}", status, asked)
