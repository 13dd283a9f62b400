"""Where a compatible account is and how it is spoken to: checked, and changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import IntegrityError, models, transaction
from django.utils import timezone

from accounts import egress, grants, oauth
from accounts.enrolment import secret_hash
from accounts.errors import BadFields, MoveRefused, TryLater
from accounts.models import POOL, Account, Credential
from accounts.states import Auth, Kind
from events import journal
from lib import bus, outside
from providers.compatible import in_order

# Stands where a secret would, for an endpoint that takes none.
NO_SECRET = "none"
SECRET_LIMIT = 4096
LONGEST_MODEL, MOST_PATTERNS, MOST_STARS = 256, 100, 3
# What people paste; the relay adds the path of each request itself.
PATHS = ("/v1/messages", "/v1")
FIELDS = frozenset({"base_url", "auth", "secret", "forwards_betas", "model_map", "proxy"})
KNOWN_ALREADY = "Another account of the pool has this endpoint and this secret."


class SecretNeeded(BadFields):
    """The stored secret is not sent to another place: whoever moves the account gives it again."""

    def __init__(self) -> None:
        super().__init__({"secret": "Give the secret again: it would be sent to another place."})


def described(
    base_url: str,
    auth: str,
    *,
    forwards_betas: bool = True,
    model_map: Mapping[str, str] | None = None,
    by_proxy: bool = False,
) -> dict[str, Any]:
    """Return the columns of an endpoint; raise BadFields. Blocking: looks the name up."""
    errors: dict[str, str] = {}
    base_url = base_url.strip().rstrip("/")
    for path in PATHS:
        base_url = base_url.removesuffix(path)
    try:
        outside.check(base_url, resolves_here=not by_proxy)
    except outside.Forbidden as error:
        errors["base_url"] = str(error)
    if auth not in set(Auth):
        errors["auth"] = "The secret is sent as bearer or x-api-key, or there is none."
    if why := _map_fault(model_map or {}):
        errors["model_map"] = why
    if errors:
        raise BadFields(errors)
    return {
        "base_url": base_url,
        "auth": str(auth),
        "forwards_betas": forwards_betas,
        "model_map": dict(model_map or {}),
    }


def checked_secret(auth: str, secret: object) -> str:
    """Return the secret to store for this way of sending it; raise BadFields."""
    text = secret.strip() if isinstance(secret, str) else ""
    if auth == Auth.NONE:
        if text:
            raise BadFields({"secret": "An endpoint without authentication takes no secret."})
        return NO_SECRET
    if not text:
        raise BadFields({"secret": "There is no secret."})
    if len(text) > SECRET_LIMIT or not oauth.is_header_safe(text):
        raise BadFields({"secret": "The secret is too long, or has characters it cannot have."})
    return text


def identity(base_url: str, secret: str) -> str:
    """Return what an account is recognised by: many local servers share one secret."""
    return secret_hash(f"{base_url}\n{secret}")


def read_map(text: str) -> dict[str, str]:
    """Read a map of models as it is written, `pattern = name` a line; raise ValueError."""
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        ours, equals, theirs = (part.strip() for part in line.partition("="))
        if not equals:
            raise ValueError(f"“{line[:60]}” is not like claude-opus-* = name.")
        if found.setdefault(ours, theirs) != theirs:
            raise ValueError(f"“{ours[:60]}” stands twice.")
    return found


def written_map(model_map: Mapping[str, str]) -> str:
    """Return a map as `read_map` reads it, in the order in which it is tried."""
    return "\n".join(f"{ours} = {theirs}" for ours, theirs in in_order(model_map))


def change(account: Account, *, by: str, now: datetime | None = None, **changes: Any) -> Account:
    """Change an account's endpoint or proxy (FIELDS) and return it; raise BadFields or TryLater.

    None leaves a field as it is, and takes a proxy away.
    A base URL, a way of authentication, or a proxy that would see the secret in the clear, is
    changed only together with the secret: a stolen session of the console must not send the stored
    one anywhere. Other kinds of account have only a proxy.
    """
    now = now or timezone.now()
    account = _fresh(account)
    if account.kind != Kind.COMPATIBLE and (wrong := changes.keys() - {"proxy"}):
        raise BadFields(dict.fromkeys(wrong, "Only a compatible endpoint has this."))
    old_proxy = egress.of(account)
    proxy = egress.checked(changes["proxy"] or "") if "proxy" in changes else old_proxy
    columns, secret = _columns(account, changes, proxy, has_moved=proxy != old_proxy)
    changed = {name for name, value in columns.items() if getattr(account, name) != value}
    noted = (changed - {"secret_hash"}) | ({"secret"} if secret else set())
    noted |= {"proxy"} if proxy != old_proxy else set()
    if not noted:
        return account
    try:
        with transaction.atomic():
            _write(account, by, now, {name: columns[name] for name in changed}, secret)
            if proxy != old_proxy:
                egress.put(account, proxy)
            journal.record(
                "account.endpoint_changed",
                account.subject,
                by=by,
                fields=sorted(noted),
                old_base_url=account.base_url,
                base_url=columns.get("base_url", ""),
            )
            bus.changed(POOL)
    except IntegrityError:
        raise BadFields({"secret": KNOWN_ALREADY}) from None
    return _fresh(account)


def _columns(
    account: Account, changes: Mapping[str, Any], proxy: str, *, has_moved: bool
) -> tuple[dict[str, Any], str]:
    """Return the columns as they shall be, and the secret of a new generation, if any."""
    if account.kind != Kind.COMPATIBLE:
        return {}, ""
    names = ("base_url", "auth", "forwards_betas", "model_map")
    given_now = {name: value for name, value in changes.items() if value is not None}
    wanted = {name: given_now.get(name, getattr(account, name)) for name in names}
    columns = described(**wanted, by_proxy=bool(proxy))
    auth, given = columns["auth"], changes.get("secret") or ""
    in_the_clear = columns["base_url"].startswith("http://")
    moved = (columns["base_url"], auth) != (account.base_url, account.auth)
    if auth == Auth.NONE:
        secret = checked_secret(auth, given)
        columns["secret_hash"] = identity(columns["base_url"], secret)
        return columns, secret if account.auth != Auth.NONE else ""
    if given:
        secret = checked_secret(auth, given)
        return columns | {"secret_hash": identity(columns["base_url"], secret)}, secret
    if moved or (has_moved and in_the_clear):
        raise SecretNeeded
    return columns, ""


def _write(account: Account, by: str, now: datetime, columns: dict[str, Any], secret: str) -> None:
    """Write the columns and the new secret, if nobody has moved the account since it was read."""
    same = Account.objects.filter(
        pk=account.pk, deleted_at=None, base_url=account.base_url, auth=account.auth
    )
    if not same.update(**(columns or {"base_url": account.base_url})):
        raise TryLater("Somebody else has changed this account a moment ago. Look at it again.")
    if not secret:
        return
    last = account.credentials.aggregate(last=models.Max("grant"))["last"] or 0
    credential = Credential.objects.create(
        account=account, grant=last + 1, generation=1, access_token=secret, obtained_at=now
    )
    row = Account.objects.get(pk=account.pk)
    grants.switch(row, credential, by=by, now=now, facts={"grant_started_at": now})


def _map_fault(model_map: Mapping[str, str]) -> str:
    if len(model_map) > MOST_PATTERNS:
        return f"A map has {MOST_PATTERNS} patterns at most."
    for pair in model_map.items():
        if not all(isinstance(name, str) and _is_name(name) for name in pair):
            return f"Names of models have 1 to {LONGEST_MODEL} visible characters, and no space."
        if pair[0].count("*") > MOST_STARS or "*" in pair[1]:
            return f"A pattern has {MOST_STARS} stars at most, and the name behind it none."
    return ""


def _is_name(name: str) -> bool:
    is_short = 0 < len(name) <= LONGEST_MODEL
    return is_short and name.isprintable() and not any(map(str.isspace, name))


def _fresh(account: Account) -> Account:
    found = Account.objects.filter(pk=account.pk, deleted_at=None).first()
    if found is None:
        raise MoveRefused(f"{account.name} was removed.")
    return found
