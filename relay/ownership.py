"""Which account keeps a thing and which key may see it; the only file that asks the database."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from django.db.models import Q
from django.utils import timezone

from relay.errors import NotFound
from relay.models import Resource


@dataclass(frozen=True, slots=True)
class Owned:
    """A thing of a key."""

    id: str
    account: int


@dataclass(frozen=True, slots=True)
class Page:
    """What a client asks of a list: so many things behind or before one, or just those of `ids`."""

    limit: int
    after: str = ""
    before: str = ""
    ids: frozenset[str] = frozenset()


def bind(kind: str, thing: str, account: int, key: int) -> None:
    """Remember that an account keeps a thing for a key; raise DatabaseError."""
    Resource.objects.create(kind=kind, upstream_id=thing, account_id=account, key_id=key)


def account_of(kind: str, thing: str, key: int) -> int | None:
    """Return the account that keeps a thing, or None when the key may not see it."""
    rows = Resource.objects.filter(_seen_by(key), kind=kind, upstream_id=thing)
    return rows.values_list("account_id", flat=True).first()


def forget(kind: str, thing: str, key: int) -> None:
    """Let nobody see a thing any more: it was deleted."""
    rows = Resource.objects.filter(_seen_by(key), kind=kind, upstream_id=thing)
    rows.update(deleted_at=timezone.now())


def listed(
    kind: str, key: int, page: Page, accounts: Collection[int] | None = None
) -> tuple[list[Owned], bool]:
    """Return a page of a key's things, newest first, and whether more follow in its direction.

    Things of other accounts than `accounts`, if given, are left out. Raise NotFound for a page that
    begins at a thing the key never had; one that was deleted since is fine.
    """
    rows = Resource.objects.filter(_seen_by(key), kind=kind)
    if accounts is not None:
        rows = rows.filter(account__in=accounts)
    if page.ids:
        rows, limit = rows.filter(upstream_id__in=page.ids), len(page.ids)
    else:
        limit = page.limit
    if page.before:
        newer = rows.filter(pk__gt=_place(kind, key, page.before)).order_by("pk")
        found = list(newer.values_list("upstream_id", "account_id")[: limit + 1])
        has_more, found = len(found) > limit, found[:limit][::-1]
    else:
        older = rows.filter(pk__lt=_place(kind, key, page.after)) if page.after else rows
        found = list(older.order_by("-pk").values_list("upstream_id", "account_id")[: limit + 1])
        has_more, found = len(found) > limit, found[:limit]
    return [Owned(thing, account) for thing, account in found], has_more


def _place(kind: str, key: int, thing: str) -> int:
    rows = Resource.objects.filter(key=key, kind=kind, upstream_id=thing)
    place = rows.values_list("pk", flat=True).first()
    if place is None:
        raise NotFound(f"Not found: {thing}")
    return place


def _seen_by(key: int) -> Q:
    return Q(key=key, deleted_at=None, account__deleted_at=None)
