"""Upstream accounts in the admin API."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

from django.http import Http404, HttpRequest
from django.utils import timezone
from ninja import Path, Query, Router, Status

from accounts import adding, cards, checks, editing, lifecycle, linking, outlook, series
from accounts.errors import AccountError, BadFields, TryLater
from accounts.models import Account
from accounts.shapes import (
    AccountIn,
    AccountOut,
    AccountPage,
    AccountPatch,
    CheckOut,
    CompatibleIn,
    CredentialsFileIn,
    DisableIn,
    FlowIn,
    FlowOut,
    SampleOut,
    Series,
    WindowAheadOut,
    described,
    window,
)
from accounts.states import Kind
from accounts.states import Status as State
from events.api import LARGEST_ID, Before, EventPage, Limit, Moment, page
from events.models import Event
from lib.access import caller_of
from lib.problems import documented

DAY = timedelta(days=1)
# The field that is to blame, and else the status: 409 when not said here.
FIELDS: dict[type[AccountError], str] = {
    adding.BadSecret: "secret",
    adding.BadFile: "secret",
    adding.NameTaken: "name",
    linking.NotACode: "pasted",
    linking.WrongState: "pasted",
    linking.ExchangeRefused: "pasted",
}
KINDS = {*Kind, "credentials_file"}
LATER = (TryLater, linking.ExchangeLost)
Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]
Word = Annotated[str | None, Query(pattern=r"^[!-~]{1,64}$")]

router = Router(tags=["accounts"])


def problem(error: AccountError) -> tuple[int, dict[str, str] | None]:
    """Return the status for an error, and what is wrong per field."""
    if isinstance(error, BadFields):
        return 422, error.errors
    if field := FIELDS.get(type(error)):
        return 422, {field: str(error)}
    return (503 if isinstance(error, LATER) else 409), None


@router.get("", response={200: AccountPage, **documented()})
def list_accounts(
    request: HttpRequest,
    status: State | None = None,
    kind: Kind | None = None,
    label: Word = None,
    cursor: Annotated[int, Query(ge=0, le=LARGEST_ID)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> AccountPage:
    """List the accounts of the pool in the order in which they were linked."""
    found = [
        card
        for card in cards.load()
        if card.account.pk > cursor
        and status in (None, card.account.status)
        and kind in (None, card.account.kind)
        and (label is None or label in card.account.labels)
    ]
    items = [described(card) for card in found[:limit]]
    return AccountPage(items=items, next=items[-1].id if len(found) > limit else None)


@router.post("", response={201: AccountOut, **documented(409)})
def add_account(request: HttpRequest, body: AccountIn) -> Any:
    """Add an account by its secret; see `oauth/start` for a login in the browser."""
    by = caller_of(request).by
    match body:
        case CompatibleIn():
            account = adding.add_compatible(**body.dict(exclude={"kind"}), by=by)
        case CredentialsFileIn():
            account = adding.add_credentials_file(body.name, body.secret, by, proxy=body.proxy)
        case _:
            account = adding.add_secret(body.kind, body.name, body.secret, by, proxy=body.proxy)
    return Status(201, _described(account.pk))


@router.post("/oauth/start", response={201: FlowOut, **documented()})
def start_login(request: HttpRequest) -> Any:
    """Begin a Claude login; only the same caller can complete it, within ten minutes."""
    caller = caller_of(request)
    flow = linking.begin(by=caller.by, session=caller.session)
    return Status(201, FlowOut(flow_id=str(flow.pk), url=flow.url, expires_at=flow.expires_at))


@router.post("/oauth/complete", response={200: AccountOut, **documented(409)})
def complete_login(request: HttpRequest, body: FlowIn) -> AccountOut:
    """Link the account of a login; repeated, it answers the same account."""
    caller = caller_of(request)
    flow = linking.find(body.flow_id, caller.session)
    if flow.used_at is None:
        linking.complete(flow.pk, body.pasted, session=caller.session)
    account = linking.confirm(flow.pk, session=caller.session, by=caller.by, name=body.name)
    return _described(account.pk)


@router.get("/{int:account_id}", response={200: AccountOut, **documented(404)})
def get_account(request: HttpRequest, account_id: Id) -> AccountOut:
    """Show one account."""
    return _described(account_id)


@router.patch("/{int:account_id}", response={200: AccountOut, **documented(404, 409)})
def change_account(request: HttpRequest, account_id: Id, body: AccountPatch) -> AccountOut:
    """Change what is given, all of it or nothing; null where null is allowed."""
    changes = body.dict(exclude_unset=True)
    editing.update(_account(account_id), by=caller_of(request).by, **changes)
    return _described(account_id)


@router.delete("/{int:account_id}", response={204: None, **documented(404, 409)})
def remove_account(request: HttpRequest, account_id: Id) -> Any:
    """Take an account out of the pool for good and destroy its secrets."""
    lifecycle.remove(_account(account_id), by=caller_of(request).by)
    return Status(204, None)


@router.post("/{int:account_id}/enable", response={200: AccountOut, **documented(404, 409)})
def enable_account(request: HttpRequest, account_id: Id) -> AccountOut:
    """Put a benched account back into the pool."""
    return _moved(lifecycle.enable, request, account_id)


@router.post("/{int:account_id}/disable", response={200: AccountOut, **documented(404, 409)})
def disable_account(
    request: HttpRequest, account_id: Id, body: DisableIn | None = None
) -> AccountOut:
    """Take an account out of the pool; its live streams end by themselves, or are cut."""
    return _moved(lifecycle.disable, request, account_id, cut=bool(body and body.cut))


@router.post("/{int:account_id}/refresh", response={200: AccountOut, **documented(404, 409)})
def refresh_account(request: HttpRequest, account_id: Id) -> AccountOut:
    """Renew an account's token now."""
    return _moved(lifecycle.refresh, request, account_id)


@router.post("/{int:account_id}/retry", response={200: AccountOut, **documented(404, 409)})
def retry_account(request: HttpRequest, account_id: Id) -> AccountOut:
    """Try an invalid account once more."""
    return _moved(lifecycle.retry, request, account_id)


@router.post("/{int:account_id}/clear", response={200: AccountOut, **documented(404, 409)})
def clear_account(request: HttpRequest, account_id: Id) -> AccountOut:
    """End an account's limit and cool-down now; the next answer may bench it again."""
    return _moved(lifecycle.clear, request, account_id)


@router.post("/{int:account_id}/test", response={200: CheckOut, **documented(404, 409)})
def test_account(request: HttpRequest, account_id: Id) -> CheckOut:
    """Try an account's credential with one request that costs nothing."""
    result = checks.test(_account(account_id), by=caller_of(request).by)
    return CheckOut(ok=result.ok, status=result.status, ms=result.ms, sentence=result.sentence)


@router.get("/{int:account_id}/history", response={200: EventPage, **documented(404)})
def account_history(
    request: HttpRequest, account_id: Id, before: Before = LARGEST_ID, limit: Limit = 100
) -> EventPage:
    """List what happened to an account, newest first; also to one that was removed."""
    account = Account.objects.filter(pk=account_id).first()
    if account is None:
        raise Http404
    return page(Event.objects.filter(subject=account.subject), before, limit)


@router.get("/{int:account_id}/windows", response={200: list[WindowAheadOut], **documented(404)})
def account_windows(request: HttpRequest, account_id: Id) -> list[WindowAheadOut]:
    """Show the last thing that was said about each limit window, and when it runs out."""
    account, now = _account(account_id), timezone.now()
    told = next(iter(outlook.accounts(now, account.pk)), None)
    ahead = {one.name: one for one in told.windows} if told else {}
    return [
        WindowAheadOut(
            **window(row, now).dict(),
            rate_per_hour=ahead[row.name].rate_per_hour if row.name in ahead else None,
            runs_out_at=ahead[row.name].runs_out_at if row.name in ahead else None,
        )
        for row in account.windows.order_by("name")
    ]


@router.get("/{int:account_id}/series", response={200: Series, **documented(404)})
def window_series(
    request: HttpRequest,
    account_id: Id,
    window: Annotated[str, Query(pattern=r"^[!-~]{1,64}$")],
    since: Moment | None = None,
    until: Moment | None = None,
) -> Series:
    """Show how far a window was used over time, the last day unless told; kept for two weeks."""
    account = _account(account_id)
    until = until or timezone.now()
    points = series.points(account.pk, window, since or until - DAY, until)
    items = [
        SampleOut(at=one.at, utilization=one.utilization, status=one.status, reset_at=one.reset_at)
        for one in points
    ]
    return Series(window=window, items=items)


def _moved(
    verb: Callable[..., object], request: HttpRequest, account_id: int, **options: Any
) -> AccountOut:
    verb(_account(account_id), by=caller_of(request).by, **options)
    return _described(account_id)


def _account(account_id: int) -> Account:
    account = Account.objects.filter(pk=account_id, deleted_at=None).first()
    if account is None:
        raise Http404
    return account


def _described(account_id: int) -> AccountOut:
    found = cards.load(pk=account_id)
    if not found:
        raise Http404
    return described(found[0])
