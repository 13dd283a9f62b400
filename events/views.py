"""The journal's page, and the page of alerts: channels, rules and what became of deliveries."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.views.decorators.http import require_GET

from events import history, listing
from events.forms import ChannelForm, JournalForm
from lib.access import operator_required


@operator_required
@require_GET
def event_list(request: HttpRequest) -> HttpResponse:
    """Show what happened, newest first; its region alone to htmx."""
    form = JournalForm(request.GET)
    wanted = form.wanted()
    lines, older = history.page(wanted)
    context = {
        "form": form,
        "lines": lines,
        "older": _with_before(request.GET, older) if older else "",
        "newest": _with_before(request.GET, None) if wanted.before else "",
        "is_filtered": any(form.cleaned_data.values()),
    }
    template = "events/_events.html" if request.htmx else "events/events.html"  # type: ignore[attr-defined]
    return render(request, template, context)


@operator_required
@require_GET
def alert_list(request: HttpRequest) -> HttpResponse:
    """Show channels, rules and the last deliveries; the deliveries alone to htmx."""
    if request.htmx:  # type: ignore[attr-defined]
        return render(request, "events/_log.html", {"log": listing.log()})
    return alerts_page(request, ChannelForm())


def alerts_page(request: HttpRequest, form: ChannelForm) -> HttpResponse:
    """Render the page of alerts with the form of a new channel."""
    context: dict[str, Any] = {
        "channels": listing.channels(),
        "rules": listing.rules(),
        "log": listing.log(),
        "form": form,
    }
    return render(request, "events/alerts.html", context)


def _with_before(query: QueryDict, before: int | None) -> str:
    changed = query.copy()
    changed.pop("before", None)
    if before is not None:
        changed["before"] = str(before)
    return f"?{changed.urlencode()}"
