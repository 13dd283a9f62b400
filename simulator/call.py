"""One request as the endpoints see it: parsed, with the credential it came with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from multidict import CIMultiDictProxy

from .errors import ApiError
from .multipart import Multipart
from .recorder import Entry
from .state import Account, ApiKey, World

OAUTH_BETA = "oauth-2025-04-20"
OAUTH_PREFIX = "sk-ant-oat01-"


@dataclass(frozen=True, slots=True)
class Credential:
    """Who a request claims to be; `name` is an e-mail address or the name of an API key."""

    kind: str | None
    name: str | None
    secret: str
    by_key_header: bool


@dataclass(slots=True)
class Call:
    """One received request."""

    method: str
    path: str
    query: dict[str, str]
    headers: CIMultiDictProxy[str]
    body: bytes
    too_large: bool
    request_id: str
    credential: Credential
    entry: Entry
    pairs: list[tuple[str, str]]
    multipart: Multipart | None = None

    def json(self) -> dict[str, Any]:
        """Return the body as an object; raise a 400 like the API's."""
        try:
            parsed = json.loads(self.body)
        except ValueError as error:
            message = "The request body is not valid JSON: " + str(error)
            raise ApiError(400, message) from None
        if not isinstance(parsed, dict):
            raise ApiError(400, "Input should be a valid dictionary")
        return parsed

    def peek(self) -> dict[str, Any]:
        """Return the body as an object, or an empty one when it is something else."""
        try:
            return self.json()
        except ApiError:
            return {}


def identify(world: World, headers: CIMultiDictProxy[str]) -> Credential:
    """Tell whose credential the headers carry, dead ones included; `x-api-key` wins."""
    key = headers.get("x-api-key")
    if key is not None:
        return _by_key(world, key, by_key_header=True)
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        return Credential(None, None, "", False)
    token = world.tokens.get(secret)
    if token is not None:
        return Credential(token.kind, token.grant.email, secret, False)
    return _by_key(world, secret, by_key_header=False)


def authenticate(world: World, call: Call, scope: str, *, beta: bool = True) -> Account | ApiKey:
    """Return who pays for the call; raise the 401 or 403 the real API would give.

    `beta` says whether a Bearer token is only good together with the OAuth beta header.
    """
    who = call.credential
    if who.kind is None:
        raise ApiError(401, "x-api-key header is required")
    if who.kind == "api_key":
        return world.api_keys[who.secret]
    if who.by_key_header or who.secret.startswith("sk-ant-api"):
        raise ApiError(401, "invalid x-api-key")
    if beta and OAUTH_BETA not in betas(call.headers):
        raise ApiError(401, "OAuth authentication is currently not supported.")
    if who.kind == "unknown":
        if not who.secret.startswith(OAUTH_PREFIX):
            raise ApiError(401, "Invalid bearer token")
        detail = "The provided token was not found or is malformed."
        raise ApiError(401, f"Invalid OAuth token. {detail}")
    token = world.tokens[who.secret]
    if token.grant.revoked:
        raise ApiError(401, "OAuth token has been revoked. Please obtain a new token.")
    if world.clock() >= token.expires_at:
        detail = "Please obtain a new token or refresh your existing token."
        raise ApiError(401, f"OAuth token has expired. {detail}")
    if scope not in token.grant.scopes:
        raise ApiError(403, f"OAuth token does not meet scope requirement: {scope}")
    account = world.accounts[token.grant.email]
    if account.disabled:
        raise ApiError(400, "This organization has been disabled.")
    return account


def betas(headers: CIMultiDictProxy[str]) -> set[str]:
    """Return all values of all anthropic-beta headers."""
    lines = headers.getall("anthropic-beta", [])
    return {value.strip() for line in lines for value in line.split(",")}


def _by_key(world: World, secret: str, *, by_key_header: bool) -> Credential:
    known = world.api_keys.get(secret)
    if known is None:
        return Credential("unknown", None, secret, by_key_header)
    return Credential("api_key", known.name, secret, by_key_header)
