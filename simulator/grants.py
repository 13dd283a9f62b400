"""What can happen to a login: approved, exchanged, refreshed, expired, revoked."""

from __future__ import annotations

import base64
import hashlib
import secrets
import uuid
from typing import Any

from .errors import FormatError, GrantError
from .state import GRANT_TTL, SETUP_TTL, Code, Grant, RefreshToken, Token, World, new_secret

CODE_LIFE = 600
INFERENCE = "user:inference"
EXCHANGE_FIELDS = frozenset(
    {"grant_type", "code", "state", "client_id", "redirect_uri", "code_verifier"}
)
REFRESH_FIELDS = frozenset({"grant_type", "refresh_token", "client_id"})
# Asked for by every client, granted to no subscription.
NEVER_GRANTED = frozenset({"org:create_api_key"})


def approve(world: World, params: dict[str, str], email: str) -> str:
    """Let a person approve the authorize request `params`; return the code."""
    code = secrets.token_urlsafe(32)
    world.codes[code] = Code(email, dict(params), world.clock())
    return code


def exchange(world: World, fields: dict[str, Any]) -> dict[str, Any]:
    """Turn a code into a new grant's tokens; raise GrantError or FormatError."""
    _require_text(fields, EXCHANGE_FIELDS)
    code = world.codes.get(fields["code"])
    if code is None:
        raise GrantError("unknown_code", "invalid_grant", "Invalid 'code' in request.")
    if code.grant is not None:
        raise GrantError("code_used", "invalid_grant", "Invalid 'code' in request.")
    if world.clock() - code.issued_at > CODE_LIFE:
        raise GrantError("code_expired", "invalid_grant", "Invalid 'code' in request.")
    for name in ("client_id", "redirect_uri", "state"):
        if fields[name] != code.params[name]:
            raise GrantError(f"bad_{name}", "invalid_grant", f"Invalid '{name}' in request.")
    if _challenge(fields["code_verifier"]) != code.params["code_challenge"]:
        raise GrantError("bad_pkce", "invalid_grant", "Invalid 'code_verifier' in request.")
    scopes = tuple(sorted(set(code.params["scope"].split()) - NEVER_GRANTED))
    code.grant = _new_grant(world, code.email, scopes)
    return _issue(world, code.grant)


def refresh(world: World, fields: dict[str, Any]) -> dict[str, Any]:
    """Rotate a refresh token; a second use of one revokes its whole grant."""
    _require_text(fields, REFRESH_FIELDS, optional=frozenset({"scope"}))
    token = world.refresh_tokens.get(fields["refresh_token"])
    dead = "Refresh token not found or invalid"
    if token is None:
        raise GrantError("unknown_token", "invalid_grant", dead)
    if token.used:
        token.grant.revoked = True
        raise GrantError("reused", "invalid_grant", dead)
    if token.grant.revoked:
        raise GrantError("revoked", "invalid_grant", dead)
    if world.clock() >= token.grant.ends_at:
        raise GrantError("expired", "invalid_grant", "Refresh token expired")
    if not set(fields.get("scope", "").split()) <= set(token.grant.scopes):
        raise GrantError("invalid_scope", "invalid_scope", "The requested scope is invalid.")
    token.used = True
    token.grant.refreshes += 1
    return _issue(world, token.grant)


def issue_setup_token(world: World, email: str) -> str:
    """Give a person a one-year, inference-only token; return it."""
    grant = _new_grant(world, email, (INFERENCE,))
    return str(_issue(world, grant)["access_token"])


def owner_of(world: World, fields: dict[str, Any]) -> str | None:
    """Return whose grant a token request is about, if that can be told."""
    code = world.codes.get(str(fields.get("code")))
    if code is not None:
        return code.email
    token = world.refresh_tokens.get(str(fields.get("refresh_token")))
    return token.grant.email if token else None


def expire_access(world: World, email: str) -> None:
    """End every access token of a person now; the grants live on."""
    now = world.clock()
    for token in world.tokens.values():
        if token.grant.email == email:
            token.expires_at = min(token.expires_at, now)


def expire_grants(world: World, email: str) -> None:
    """Let every login of a person reach its end now; access tokens live on."""
    now = world.clock()
    for grant in world.grants:
        if grant.email == email:
            grant.ends_at = min(grant.ends_at, now)


def revoke(world: World, email: str) -> None:
    """Revoke every grant of a person."""
    for grant in world.grants:
        if grant.email == email:
            grant.revoked = True


def _require_text(
    fields: dict[str, Any],
    required: frozenset[str],
    optional: frozenset[str] = frozenset(),
) -> None:
    names = set(fields)
    if not required <= names <= required | optional:
        raise FormatError
    if not all(isinstance(value, str) and value for value in fields.values()):
        raise FormatError


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _new_grant(world: World, email: str, scopes: tuple[str, ...]) -> Grant:
    now = world.clock()
    life = SETUP_TTL if scopes == (INFERENCE,) else GRANT_TTL
    grant = Grant(str(uuid.uuid4()), email, scopes, now, now + life)
    world.grants.append(grant)
    return grant


def _issue(world: World, grant: Grant) -> dict[str, Any]:
    account = world.accounts[grant.email]
    is_setup = grant.scopes == (INFERENCE,)
    life = SETUP_TTL if is_setup else account.access_ttl
    access = new_secret("sk-ant-oat01-")
    kind = "setup_token" if is_setup else "oauth"
    world.tokens[access] = Token(access, kind, grant, world.clock() + life)
    answer: dict[str, Any] = {
        "token_type": "Bearer",
        "access_token": access,
        "expires_in": life,
        "scope": " ".join(grant.scopes),
        "token_uuid": str(uuid.uuid4()),
        "organization": {"uuid": account.organization_uuid, "name": account.organization_name},
        "account": {"uuid": account.account_uuid, "email_address": account.email},
    }
    if not is_setup:
        answer["refresh_token"] = new_secret("sk-ant-ort01-")
        answer["refresh_token_expires_in"] = int(grant.ends_at - world.clock())
        world.refresh_tokens[answer["refresh_token"]] = RefreshToken(grant)
    return answer
