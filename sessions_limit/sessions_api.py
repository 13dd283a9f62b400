"""The sessions of clients in the admin API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from django.http import Http404, HttpRequest
from ninja import Field, Path, Query, Router, Schema

from events.api import LARGEST_ID
from lib import peer, problems
from lib.access import caller_of
from lib.problems import documented
from lib.shapes import Refusing
from sessions_limit import revoking, showing
from sessions_limit.models import ClientKey, ClientSession
from sessions_limit.revoking import NoAddress
from sessions_limit.showing import Shown, State

Uid = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
KeyId = Annotated[int, Field(ge=1, le=LARGEST_ID)]
WRONG = "Some of what was sent cannot be."
ONE_OF = "Name exactly one of key, address and all."

router = Router(tags=["sessions"])


class SessionOut(Schema):
    """One life of one conversation of a client."""

    id: str
    key: int
    key_name: str
    client: str = Field(description="who is limited: key:<id>, or ip:<address>")
    session: str = Field(description="the client's own id of it; default: it names none")
    address: str
    user_agent: str
    account: int | None = Field(description="the account it is bound to, as far as it is known")
    account_name: str | None
    started_at: datetime
    last_seen_at: datetime
    requests: int
    in_flight: int = Field(description="what it has under way; 0 also while Redis is away")
    streams: int = Field(description="how many of them are live streams")
    ended_at: datetime | None = Field(description="null while it lives")
    ended: Literal["", "idle", "too old", "revoked"]


class SessionPage(Schema):
    """Sessions, the last begun first; `next` is the `cursor` of the page that follows."""

    items: list[SessionOut]
    next: int | None


class SessionFilter(Schema):
    """Which sessions are wanted."""

    key: KeyId | None = None
    client: str | None = Field(None, pattern=r"^[!-~]{1,96}$")
    address: str | None = Field(None, pattern=r"^[0-9A-Fa-f.:]{2,45}$")
    state: State = "living"


class RevokeIn(Refusing):
    """Whose sessions are revoked: those of a key, those of an address, or all there are."""

    key: KeyId | None = None
    address: str | None = Field(None, max_length=64, description="of IPv6 its /64 is meant")
    all: Literal[True] | None = None


class Revoked(Schema):
    """How many sessions were revoked."""

    revoked: int


@router.get("", response={200: SessionPage, **documented()})
def list_sessions(
    request: HttpRequest,
    wanted: Query[SessionFilter],
    cursor: Annotated[int, Query(ge=1, le=LARGEST_ID)] = LARGEST_ID,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> SessionPage:
    """List sessions, the last begun first; those that live, unless told otherwise."""
    address = peer.address_of(wanted.address or "") or wanted.address or ""
    rows = showing.found(
        key=wanted.key, client=wanted.client or "", address=address, state=wanted.state
    )
    found = list(rows.filter(pk__lt=cursor).order_by("-pk")[: limit + 1])
    items = [_described(one) for one in showing.shown(found[:limit])]
    return SessionPage(items=items, next=found[limit - 1].pk if len(found) > limit else None)


@router.post("/revoke", response={200: Revoked, **documented()})
def revoke_sessions(request: HttpRequest, body: RevokeIn) -> Any:
    """Revoke many sessions at once, also those that begin at this moment."""
    by = caller_of(request).by
    given = body.dict(exclude_none=True)
    if len(given) != 1:
        return problems.response(422, WRONG, errors={"body": ONE_OF})
    if body.all:
        return Revoked(revoked=revoking.revoke_all(by))
    if body.key is not None:
        key = ClientKey.objects.filter(pk=body.key).first()
        if key is None:
            return problems.response(422, WRONG, errors={"key": "There is no such key."})
        return Revoked(revoked=revoking.revoke_sessions_of_key(key, by))
    try:
        return Revoked(revoked=revoking.revoke_sessions_of_address(body.address or "", by))
    except NoAddress:
        return problems.response(422, WRONG, errors={"address": "This is not an IP address."})


@router.get("/{uid}", response={200: SessionOut, **documented(404)})
def get_session(request: HttpRequest, uid: Uid) -> SessionOut:
    """Show one session, whether it lives or not."""
    return _described(showing.shown([_session(uid)])[0])


@router.post("/{uid}/revoke", response={200: SessionOut, **documented(404)})
def revoke_session(request: HttpRequest, uid: Uid) -> SessionOut:
    """Refuse a session for a while and end what runs of it; once more makes it longer."""
    revoking.revoke_session(_session(uid), by=caller_of(request).by)
    return _described(showing.shown([_session(uid)])[0])


def _session(uid: str) -> ClientSession:
    row = showing.found(state=showing.ALL).filter(uid=uid).first()
    if row is None:
        raise Http404
    return row


def _described(one: Shown) -> SessionOut:
    return SessionOut(**showing.facts(one))
