"""An account's page, composed of what the apps know of it, and the page that asks before a cut."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from accounts import cards, egress, prospects, strips
from accounts.cards import Card
from events import history
from lib.access import operator_required
from providers import compatible
from relay import capabilities
from relay.ramp import ramp

HISTORY = 50
# What fits into a column of the database.
LARGEST_ID = 2**63 - 1


@operator_required
@require_GET
def account(request: HttpRequest, pk: int) -> HttpResponse:
    """Show all that is known of one account; to htmx only what changes by itself."""
    now = timezone.now()
    card = _only(prospects.load(now, pk))
    before = _number(request.GET.get("before", ""))
    wanted = history.Wanted(subject=card.account.subject, before=before)
    lines, older = history.page(wanted, HISTORY)
    context = {
        "card": card,
        "account": card.account,
        "proxy": egress.shown(card.account),
        "strips": strips.load(card.account, now),
        "models": capabilities.of(pk),
        "mapped": compatible.in_order(card.account.model_map),
        "lines": lines,
        "older": older,
        "before": before,
    }
    template = "proxy_project/_account_live.html" if request.htmx else "proxy_project/account.html"  # type: ignore[attr-defined]
    return render(request, template, context)


@operator_required
@require_GET
def cut(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask once before what an account serves now is ended."""
    card = _only(cards.load(pk=pk))
    context = {"account": card.account, "running": ramp.in_flight(pk)}
    return render(request, "proxy_project/account_cut.html", context)


def _only(found: list[Card]) -> Card:
    if not found:
        raise Http404
    return found[0]


def _number(text: str) -> int | None:
    """Return the `before` of an address; None for one that leads nowhere."""
    is_number = text.isascii() and text.isdigit() and len(text) < 20
    return min(int(text), LARGEST_ID) if is_number else None
