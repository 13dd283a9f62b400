"""The pages of sessions: the list, and the page that asks before any of them is revoked."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from lib.access import operator_required
from sessions_limit import revoking, session_listing
from sessions_limit.filters import SessionFilter
from sessions_limit.models import ClientKey, ClientSession
from sessions_limit.revoking import NoAddress, read_address
from sessions_limit.session_listing import Wanted
from sessions_limit.showing import ALL

DONE = "{} session{} revoked."
NONE_LEFT = "No session was left to revoke: they have ended or were revoked already."


@operator_required
@require_GET
def session_list(request: HttpRequest) -> HttpResponse:
    """Show sessions, the living first; its region alone to htmx."""
    form = SessionFilter(request.GET)
    told = form.told
    number = told.pop("page") or 1
    wanted = Wanted(**{name: value for name, value in told.items() if value})
    context = {
        "form": form,
        "wanted": wanted,
        "page": session_listing.page(wanted, number),
        "number": number,
        "newest": _with_page(request.GET, None) if number > 1 else "",
        "older": _with_page(request.GET, number + 1),
        "is_filtered": any(told.get(name) for name in ("key", "account", "address", "q")),
        "is_limited": settings.CONFIG.session_limit,
        "by_address": settings.CONFIG.session_client != "key",
    }
    template = "_sessions.html" if request.htmx else "sessions.html"  # type: ignore[attr-defined]
    return render(request, f"sessions_limit/{template}", context)


@operator_required
@require_http_methods(["GET", "POST"])
def revoke(request: HttpRequest, uid: str) -> HttpResponse:
    """Ask once, then revoke a session."""
    rows = ClientSession.objects.select_related("key", "account")
    row = get_object_or_404(rows, uid=uid)
    if row.ended == revoking.REVOKED:
        messages.info(request, "That session was revoked already.")
        return redirect("sessions:list")
    if request.method == "GET":
        names = [row.name] if row.ended_at is None else []
        under = session_listing.under_way(names, session_listing.look())
        return _ask(request, under, row=row)
    revoking.revoke_session(row, by=request.user.get_username())
    messages.success(request, "The session is revoked.")
    return redirect("sessions:list")


@operator_required
@require_http_methods(["GET", "POST"])
def revoke_of_key(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask once, then revoke every session of a key; the key stays good."""
    key = get_object_or_404(ClientKey, pk=pk)
    if request.method == "GET":
        return _ask(request, session_listing.ends_with(key=key), key=key)
    revoked = revoking.revoke_sessions_of_key(key, by=request.user.get_username())
    return _done(request, revoked, key=key.pk)


@operator_required
@require_http_methods(["GET", "POST"])
def revoke_of_address(request: HttpRequest, address: str) -> HttpResponse:
    """Ask once, then revoke every session of an address, of IPv6 of its /64."""
    try:
        address = read_address(address)
    except NoAddress:
        raise Http404 from None
    if request.method == "GET":
        return _ask(request, session_listing.ends_with(address=address), address=address)
    revoked = revoking.revoke_sessions_of_address(address, by=request.user.get_username())
    return _done(request, revoked, address=address)


@operator_required
@require_http_methods(["GET", "POST"])
def revoke_everything(request: HttpRequest) -> HttpResponse:
    """Ask once, then revoke every session of the relay."""
    if request.method == "GET":
        return _ask(request, session_listing.ends_with())
    return _done(request, revoking.revoke_all(by=request.user.get_username()))


def _ask(request: HttpRequest, under: session_listing.Under, **aim: Any) -> HttpResponse:
    context = {"under": under, "seconds": settings.CONFIG.session_ban_seconds} | aim
    return render(request, "sessions_limit/session_revoke.html", context)


def _done(request: HttpRequest, revoked: int, **shown: Any) -> HttpResponse:
    """Say what was done, beside the sessions that it was done to."""
    if revoked:
        messages.success(request, DONE.format(revoked, " is" if revoked == 1 else "s are"))
    else:
        messages.info(request, NONE_LEFT)
    query = f"?{urlencode({'state': ALL} | shown)}" if shown else ""
    return redirect(f"{reverse('sessions:list')}{query}")


def _with_page(query: QueryDict, number: int | None) -> str:
    changed = query.copy()
    changed.pop("page", None)
    if number is not None:
        changed["page"] = str(number)
    return f"?{changed.urlencode()}"
