"""Adding an account without the link page: a key, a token, a credentials file or an endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from asgiref.sync import async_to_sync
from django.db import transaction
from django.utils import timezone

from accounts import egress, endpoints, oauth, profile_endpoint
from accounts.enrolment import Login, clean_name, enrol, known, secret_hash
from accounts.errors import AccountError, BadFields
from accounts.models import Account
from accounts.presets import PRESETS
from accounts.states import Auth, Kind, Status

FILE_LIMIT = 64 * 1024
SECRET_LIMIT = 4096
LAST_YEAR = datetime(2100, 1, 1, tzinfo=UTC)
SHARED_LOGIN = (
    "This login is now held twice. The first of the two that renews it logs the other one out: "
    "log out of Claude Code on the machine this file came from, or link a login of the relay's own."
)


class AddError(AccountError):
    """An account could not be added; the text says why and what to do."""


class BadSecret(AddError):
    """The secret cannot be one: empty, too long, or with characters no header can carry."""


class BadFile(AddError):
    """The text is not a credentials file."""


class AlreadyLinked(AddError):
    """The pool has this secret already."""


class NameTaken(AddError):
    """Another account has this name, or the name is empty."""


def add_secret(
    kind: Kind | str,
    name: str,
    secret: str,
    by: str,
    now: datetime | None = None,
    *,
    proxy: str = "",
    is_restored: bool = False,
) -> Account:
    """Add an API key or a setup token and return its account; raise an AddError.

    The prefix of a secret is never a reason to refuse it. A secret whose account is `invalid` is
    linked anew in place. One that `is_restored` from a back-up waits, `inactive`, until it is
    enabled (S02).
    """
    kind = Kind(kind)
    if kind is Kind.OAUTH:
        raise BadSecret("A login is added by its credentials file, or by linking it.")
    if kind is Kind.COMPATIBLE:
        raise BadSecret("A compatible endpoint is added with its base URL.")
    secret, proxy = _checked(secret), egress.checked(proxy)
    grant = oauth.Grant(access_token=secret, refresh_token=None, expires_at=None)
    hashed = secret_hash(secret)
    login = Login(kind=kind, grant=grant, secret_hash=hashed, is_restored=is_restored)
    return _add(login, name, by, now or timezone.now(), proxy=proxy)


def add_credentials_file(
    name: str,
    text: str,
    by: str,
    now: datetime | None = None,
    *,
    proxy: str = "",
    is_restored: bool = False,
) -> Account:
    """Add the login in a `.credentials.json` of Claude Code and return its account.

    Raises an AddError. A profile that cannot be read never fails it. `is_restored`: as above.
    Whoever calls this shows SHARED_LOGIN to the operator.
    """
    grant, proxy = _read(text), egress.checked(proxy)
    profile = async_to_sync(_profile)(grant.access_token, proxy)
    secret = grant.refresh_token or grant.access_token
    facts: dict[str, Any] = asdict(profile) | {"profile_read": True} if profile else {}
    facts |= {"secret_hash": secret_hash(secret), "is_restored": is_restored}
    login = Login(kind=Kind.OAUTH, grant=grant, **facts)
    return _add(login, name, by, now or timezone.now(), proxy=proxy)


def add_compatible(
    name: str,
    *,
    by: str,
    preset: str = "",
    base_url: str = "",
    auth: Auth | str | None = None,
    secret: str = "",
    forwards_betas: bool | None = None,
    model_map: Mapping[str, str] | None = None,
    proxy: str = "",
    is_restored: bool = False,
    now: datetime | None = None,
) -> Account:
    """Add an endpoint that offers the Messages API, and return its account; raise an AccountError.

    What is not given is as the preset has it, but for the map: an account serves models under
    other names only if somebody said so.
    """
    known_as = PRESETS.get(preset)
    if preset and known_as is None:
        raise BadFields({"preset": "There is no such preset."})
    proxy = egress.checked(proxy)
    columns = endpoints.described(
        base_url or (known_as.base_url if known_as else ""),
        str(auth or (known_as.auth if known_as else Auth.BEARER)),
        forwards_betas=_either(forwards_betas, known_as.forwards_betas if known_as else True),
        model_map=model_map,
        by_proxy=bool(proxy),
    )
    secret = endpoints.checked_secret(columns["auth"], secret)
    grant = oauth.Grant(access_token=secret, refresh_token=None, expires_at=None)
    identity = endpoints.identity(columns["base_url"], secret)
    login = Login(kind=Kind.COMPATIBLE, grant=grant, secret_hash=identity, is_restored=is_restored)
    columns |= {"preset": preset}
    return _add(login, name, by, now or timezone.now(), proxy=proxy, columns=columns)


def _either(given: bool | None, otherwise: bool) -> bool:
    return otherwise if given is None else given


def _add(
    login: Login,
    name: str,
    by: str,
    now: datetime,
    *,
    proxy: str = "",
    columns: Mapping[str, Any] | None = None,
) -> Account:
    existing = known(login)
    # The same login in a new file is a re-link; the same secret again is most likely a mistake.
    is_same = existing is not None and existing.secret_hash == login.secret_hash
    is_known = is_same and existing is not None and existing.status != Status.INVALID
    # Nor does a token from a back-up take the place of one that may be newer.
    if existing is not None and (is_known or login.is_restored):
        raise AlreadyLinked(f"This is in the pool already, as {existing.name}.")
    if existing is None:
        name = clean_name(name) or login.email
        if not name:
            raise NameTaken("Give the account a name.")
        if Account.objects.filter(name=name).exists():
            raise NameTaken(f"Another account is called {name}. Choose another name.")
    with transaction.atomic():
        account = enrol(login, name=name, by=by, now=now)
        if columns:
            Account.objects.filter(pk=account.pk).update(**columns)
            account.refresh_from_db()
        if proxy:
            egress.put(account, proxy)
    return account


def _checked(secret: object) -> str:
    text = secret.strip() if isinstance(secret, str) else ""
    if not text:
        raise BadSecret("There is no secret.")
    if len(text) > SECRET_LIMIT:
        raise BadSecret(f"The secret is too long: more than {SECRET_LIMIT} characters.")
    if not oauth.is_header_safe(text):
        raise BadSecret("The secret has spaces, line breaks or other characters it cannot have.")
    return text


def _read(text: str) -> oauth.Grant:
    if len(text) > FILE_LIMIT:
        raise BadFile("This is too large for a credentials file.")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise BadFile("This is not a credentials file: it is not JSON.") from None
    login = data.get("claudeAiOauth") if isinstance(data, dict) else None
    if not isinstance(login, dict):
        raise BadFile("This is not a credentials file: it has no claudeAiOauth.")
    refresh_token = login.get("refreshToken")
    return oauth.Grant(
        access_token=_checked(login.get("accessToken")),
        refresh_token=_checked(refresh_token) if refresh_token else None,
        expires_at=_moment(login.get("expiresAt")),
        scopes=_scopes(login.get("scopes")),
    )


def _moment(milliseconds: object) -> datetime | None:
    """Return the end of the access token; None if the file does not say it."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int):
        return None
    if not 0 < milliseconds < LAST_YEAR.timestamp() * 1000:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _scopes(scopes: object) -> str:
    if not isinstance(scopes, list):
        return ""
    return " ".join(scope for scope in scopes if oauth.is_header_safe(scope))[:500]


async def _profile(access_token: str, proxy: str) -> profile_endpoint.Profile | None:
    try:
        return await profile_endpoint.read(access_token, proxy=proxy)
    except profile_endpoint.ProfileUnreadable:
        return None
