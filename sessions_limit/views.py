"""The key pages: list, create (shown once), revoke."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from lib.access import operator_required
from sessions_limit import keys, listing
from sessions_limit.forms import KeyForm
from sessions_limit.models import ClientKey

PLACEHOLDER = "YOUR_KEY"


@operator_required
@require_GET
def key_list(request: HttpRequest) -> HttpResponse:
    """Show every key and the settings for clients."""
    return _list(request, KeyForm())


@operator_required
@require_http_methods(["GET", "POST"])
@never_cache
def create(request: HttpRequest) -> HttpResponse:
    """Make a key and show it, in this one answer only."""
    if request.method == "GET":  # its address, opened again
        return redirect("keys:list")
    form = KeyForm(request.POST)
    if not form.is_valid():
        return _list(request, form)
    key, plaintext = keys.create(
        name=form.cleaned_data["name"],
        by=request.user.get_username(),
        expires_at=form.expires_at(),
        labels=form.cleaned_data["labels"],
    )
    context = {"key": key, "plaintext": plaintext}
    context |= {"snippets": listing.snippets(_base(request), plaintext)}
    return render(request, "sessions_limit/created.html", context)


@operator_required
@require_http_methods(["GET", "POST"])
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask once, then end a key for good."""
    key = get_object_or_404(ClientKey, pk=pk)
    if request.method == "GET":
        return render(request, "sessions_limit/revoke.html", {"key": key})
    if keys.revoke(key, by=request.user.get_username()):
        messages.success(request, f"The key “{key.name}” is revoked.")
    else:
        messages.info(request, f"The key “{key.name}” was revoked before.")
    return redirect("keys:list")


def _list(request: HttpRequest, form: KeyForm) -> HttpResponse:
    context = {"rows": listing.rows(ClientKey.objects.all()), "form": form}
    context |= {"snippets": listing.snippets(_base(request), PLACEHOLDER)}
    return render(request, "sessions_limit/list.html", context)


def _base(request: HttpRequest) -> str:
    return settings.CONFIG.public_url or request.build_absolute_uri("/").rstrip("/")
