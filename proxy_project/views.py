"""The console's composed pages and the way in: overview, sign-in, first-run set-up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods
from django_htmx.http import HttpResponseClientRefresh

from accounts import cards
from lib.access import operator_required
from proxy_project import clients, setup, statistics
from proxy_project.forms import OperatorForm, SignInForm
from proxy_project.rooms import rooms
from sessions_limit import listing
from usage.models import RequestRecord

# How long the ticked first steps stay, so that the tick is seen.
NEW = timedelta(minutes=10)


@operator_required
@require_GET
def overview(request: HttpRequest) -> HttpResponse:
    """Show how the pool stands and what to do next; its region alone to htmx."""
    now = timezone.now()
    pool, stands = cards.load(now), statistics.load(now)
    first, last = RequestRecord.objects.last(), RequestRecord.objects.first()
    context = {
        "verdict": cards.verdict(pool, now),
        "health": stands.health,
        "rooms": rooms(stands.pool),
        "counts": cards.count(pool),
        "troubled": cards.troubled(pool),
        "accounts": len(pool),
        "keys": listing.count_usable(now),
        "clients": clients.load(),
        "last": last,
    }
    is_new = first is None or first.started_at > now - NEW
    context["is_beginning"] = is_new or not (context["accounts"] and context["keys"])
    template = "proxy_project/_overview.html" if request.htmx else "proxy_project/overview.html"  # type: ignore[attr-defined]
    return render(request, template, context)


class SignIn(LoginView):
    """Sign an operator in; Django rotates the session and refuses a foreign `next`."""

    template_name = "proxy_project/sign_in.html"
    authentication_form = SignInForm

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show the form; a page whose session ended is reloaded instead of getting it inside."""
        if request.htmx:  # type: ignore[attr-defined]
            return HttpResponseClientRefresh()
        return super().get(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add whether there is anybody to sign in yet."""
        return super().get_context_data(has_operator=setup.has_operator(), **kwargs)


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "POST"])
def set_up(request: HttpRequest, token: str = "") -> HttpResponse:
    """Create the first operator for whoever holds the one-time link."""
    if not setup.is_valid(token):
        context = {"has_operator": setup.has_operator()}
        return render(request, "proxy_project/setup_closed.html", context, status=404)
    form = OperatorForm(request.POST if request.method == "POST" else None)
    if request.method == "GET" or not form.is_valid():
        return render(request, "proxy_project/setup.html", {"form": form})
    operator = form.save(commit=False)
    if not setup.create_operator(token, operator):
        return redirect("setup")
    login(request, operator, backend="django.contrib.auth.backends.ModelBackend")
    messages.success(request, "You are the operator of this relay.")
    return redirect("overview")
