"""The pages of one key: how it stands, its terms, its rotation, its end."""

from __future__ import annotations

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from events import history, naming
from lib.access import operator_required
from sessions_limit import bars, caps, issuing, listing, session_listing, visits
from sessions_limit.forms import KeyTermsForm, RotateForm
from sessions_limit.issuing import KeyRevoked
from sessions_limit.models import ClientKey
from sessions_limit.session_listing import Wanted
from sessions_limit.snippets import PLACEHOLDER, snippets
from sessions_limit.views import base

HISTORY = 20
ROTATED = (
    "The key “{}” was rotated already. The new one was shown then, and only then; rotate once more "
    "if nobody has it."
)


@operator_required
@require_GET
def key(request: HttpRequest, pk: int) -> HttpResponse:
    """Show all that is known of one key; to htmx only what changes by itself."""
    row, now = get_object_or_404(ClientKey, pk=pk), timezone.now()
    lines, older = history.page(history.Wanted(subject=f"key:{pk}"), HISTORY)
    sessions = session_listing.page(Wanted(key=pk))
    context = {
        "key": row,
        "tone": listing.TONES[row.state],
        "bars": bars.load([row], now)[pk],
        "page": sessions,
        "most_sessions": caps.most_sessions(row.max_sessions),
        "in_flight": visits.of_key(pk),
        "most_in_flight": caps.most_in_flight(row.max_in_flight),
        "lines": lines,
        "older": older,
    }
    if request.htmx:  # type: ignore[attr-defined]
        return render(request, "sessions_limit/_key_live.html", context)
    pinned = f"account:{row.pinned_account}"
    context |= {
        "pinned": naming.names([pinned]).get(pinned, "") if row.pinned_account else "",
        "snippets": snippets(base(request), PLACEHOLDER, is_passthrough=row.passthrough),
    }
    return render(request, "sessions_limit/key.html", context)


@operator_required
@require_http_methods(["GET", "POST"])
def change(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the terms of a key; take what was changed, or say what cannot be."""
    row = get_object_or_404(ClientKey, pk=pk)
    if row.revoked_at is not None:
        return _refused(request, row)
    form = KeyTermsForm(request.POST if request.method == "POST" else None, key=row)
    if request.method == "GET" or not form.is_valid():
        return render(request, "sessions_limit/terms.html", {"key": row, "form": form})
    try:
        row = issuing.update(row, by=request.user.get_username(), **form.columns)
    except KeyRevoked:
        return _refused(request, row)
    said = "The terms of “{}” are changed." if form.columns else "Nothing was changed for “{}”."
    messages.success(request, said.format(row.name))
    return redirect("keys:key", pk)


@operator_required
@require_http_methods(["GET", "POST"])
def rotate(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask how long the old secret still works, then show the new one, in this one answer only."""
    row = get_object_or_404(ClientKey, pk=pk)
    if row.revoked_at is not None:
        return _refused(request, row)
    form = RotateForm(
        request.POST if request.method == "POST" else None, initial={"hint": row.hint}
    )
    if request.method == "GET" or not form.is_valid():
        return render(request, "sessions_limit/rotate.html", {"key": row, "form": form})
    try:
        text = _rotated(row, form, by=request.user.get_username())
    except KeyRevoked:
        return _refused(request, row)
    if text is None:
        messages.warning(request, ROTATED.format(row.name))
        return redirect("keys:key", pk)
    row.refresh_from_db()
    context = {
        "key": row,
        "plaintext": text,
        "snippets": snippets(base(request), text, is_passthrough=row.passthrough),
    }
    return render(request, "sessions_limit/rotated.html", context)


@operator_required
@require_http_methods(["GET", "POST"])
def enable(request: HttpRequest, pk: int) -> HttpResponse:
    """Let a key open the relay again."""
    return _switch(request, pk, on=True)


@operator_required
@require_http_methods(["GET", "POST"])
def disable(request: HttpRequest, pk: int) -> HttpResponse:
    """Let a key open nothing until it is enabled."""
    return _switch(request, pk, on=False)


@operator_required
@require_http_methods(["GET", "POST"])
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask once, then end a key for good."""
    row = get_object_or_404(ClientKey, pk=pk)
    if request.method == "GET":
        context = {"key": row, "under": session_listing.ends_with(key=row)}
        return render(request, "sessions_limit/revoke.html", context)
    if issuing.revoke(row, by=request.user.get_username()):
        messages.success(request, f"The key “{row.name}” is revoked.")
    else:
        messages.info(request, f"The key “{row.name}” was revoked before.")
    return redirect("keys:key", pk)


def _rotated(row: ClientKey, form: RotateForm, by: str) -> str | None:
    """Rotate a key that is still the one the form was about; a form sent twice rotates once."""
    hint = form.cleaned_data["hint"]
    with transaction.atomic():
        if ClientKey.objects.select_for_update().filter(pk=row.pk, hint=hint).first() is None:
            return None
        return issuing.rotate(row, by=by, overlap=form.hours)


def _switch(request: HttpRequest, pk: int, *, on: bool) -> HttpResponse:
    row = get_object_or_404(ClientKey, pk=pk)
    if request.method == "GET":  # whoever signed in anew after pressing a button
        return redirect("keys:key", pk)
    verb, done = (issuing.enable, "enabled") if on else (issuing.disable, "disabled")
    try:
        is_new = verb(row, by=request.user.get_username())
    except KeyRevoked:
        return _refused(request, row)
    tell = messages.success if is_new else messages.info
    tell(request, f"The key “{row.name}” is {done}{'' if is_new else ' already'}.")
    return redirect("keys:key", pk)


def _refused(request: HttpRequest, row: ClientKey) -> HttpResponse:
    messages.error(request, str(KeyRevoked(row)))
    return redirect("keys:key", row.pk)
