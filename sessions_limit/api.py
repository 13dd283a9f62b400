"""Relay keys in the admin API."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from django.http import Http404, HttpRequest
from django.utils import timezone
from ninja import Path, Query, Router, Status

from events.api import LARGEST_ID
from lib.access import caller_of
from lib.problems import documented
from sessions_limit import issuing, listing, terms
from sessions_limit.key_shapes import (
    KeyIn,
    KeyMade,
    KeyOut,
    KeyPage,
    KeyPatch,
    RotateIn,
    State,
    described,
    made,
)
from sessions_limit.models import ClientKey

Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]

router = Router(tags=["keys"])


@router.get("", response={200: KeyPage, **documented()})
def list_keys(
    request: HttpRequest,
    state: State | None = None,
    cursor: Annotated[int, Query(ge=0, le=LARGEST_ID)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> KeyPage:
    """List the relay's keys in the order in which they were made, also those that have ended."""
    rows = ClientKey.objects.filter(pk__gt=cursor).order_by("pk")
    if state is not None:
        rows = rows.filter(listing.is_in(state, timezone.now()))
    found = list(rows[: limit + 1])
    items = [described(key) for key in found[:limit]]
    return KeyPage(items=items, next=items[-1].id if len(found) > limit else None)


@router.post("", response={201: KeyMade, **documented()})
def create_key(request: HttpRequest, body: KeyIn) -> Any:
    """Make a key; `key` is shown in this one answer only."""
    columns = terms.checked(**body.dict(exclude_unset=True))
    row, text = issuing.create(by=caller_of(request).by, **columns)
    return Status(201, made(row, text))


@router.get("/{int:key_id}", response={200: KeyOut, **documented(404)})
def get_key(request: HttpRequest, key_id: Id) -> KeyOut:
    """Show one key."""
    return described(_key(key_id))


@router.patch("/{int:key_id}", response={200: KeyOut, **documented(404, 409)})
def change_key(request: HttpRequest, key_id: Id, body: KeyPatch) -> KeyOut:
    """Change what is given, all of it or nothing; null where null is allowed."""
    key, columns = _key(key_id), terms.checked(**body.dict(exclude_unset=True))
    return described(issuing.update(key, by=caller_of(request).by, **columns))


@router.post("/{int:key_id}/rotate", response={200: KeyMade, **documented(404, 409)})
def rotate_key(request: HttpRequest, key_id: Id, body: RotateIn | None = None) -> KeyMade:
    """Give a key a new secret, shown in this one answer only; the old one works for a while."""
    overlap = timedelta(hours=(body or RotateIn()).overlap_hours)
    text = issuing.rotate(_key(key_id), by=caller_of(request).by, overlap=overlap)
    return made(_key(key_id), text)


@router.post("/{int:key_id}/revoke", response={200: KeyOut, **documented(404)})
def revoke_key(request: HttpRequest, key_id: Id) -> KeyOut:
    """End a key for good, with what runs on it; one that is revoked stays so."""
    issuing.revoke(_key(key_id), by=caller_of(request).by)
    return described(_key(key_id))


def _key(key_id: int) -> ClientKey:
    key = ClientKey.objects.filter(pk=key_id).first()
    if key is None:
        raise Http404
    return key
