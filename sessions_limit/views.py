"""The page of all keys, and the one that makes a key and shows it once."""

from __future__ import annotations

from django.conf import settings
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_http_methods

from lib.access import operator_required
from sessions_limit import issuing, listing
from sessions_limit.filters import KeyFilter
from sessions_limit.forms import KeyForm
from sessions_limit.snippets import PLACEHOLDER, snippets

PAGE = 100


@operator_required
@require_GET
def key_list(request: HttpRequest) -> HttpResponse:
    """Show every key and the settings for clients; the table alone to htmx."""
    form = KeyFilter(request.GET)
    told = form.told
    found = listing.found(told["state"] or "", told["q"] or "")
    page = Paginator(found, PAGE).get_page(told["page"])
    query = request.GET.copy()
    query.pop("page", None)
    context = {
        "form": form,
        "page": page,
        "rows": listing.rows(list(page.object_list)),
        "query": query.urlencode(),
        "is_filtered": bool(told["state"] or told["q"]),
    }
    if request.htmx:  # type: ignore[attr-defined]
        return render(request, "sessions_limit/_keys.html", context)
    context["snippets"] = snippets(base(request), PLACEHOLDER)
    return render(request, "sessions_limit/list.html", context)


@operator_required
@require_http_methods(["GET", "POST"])
def create(request: HttpRequest) -> HttpResponse:
    """Make a key and show it, in this one answer only."""
    form = KeyForm(request.POST if request.method == "POST" else None)
    if request.method == "GET" or not form.is_valid():
        return render(request, "sessions_limit/create.html", {"form": form})
    columns = form.columns | {"expires_at": form.expires_at()}
    key, plaintext = issuing.create(by=request.user.get_username(), **columns)
    context = {
        "key": key,
        "plaintext": plaintext,
        "snippets": snippets(base(request), plaintext, is_passthrough=key.passthrough),
    }
    return render(request, "sessions_limit/created.html", context)


def base(request: HttpRequest) -> str:
    """Return the address at which clients find this relay."""
    return settings.CONFIG.public_url or request.build_absolute_uri("/").rstrip("/")
