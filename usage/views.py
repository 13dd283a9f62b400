"""The pages of usage: a report by the address's question, and the operator's prices."""

from __future__ import annotations

from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST
from kombu.exceptions import OperationalError

from lib.access import operator_required
from usage import pricelist, reports, showing, tasks, unpriced
from usage.forms import GROUPS, METRICS, PriceForm, ReportForm, RepriceForm
from usage.models import Price
from usage.reports import BadReport, Question, Report


@operator_required
@require_GET
def report(request: HttpRequest) -> HttpResponse:
    """Show a report; every part of its question is in the address."""
    form = ReportForm(request.GET.dict())
    asked, found = _report(form)
    query = {name: value for name, value in request.GET.dict().items() if value}
    context = {
        "form": form,
        "title": f"{METRICS[asked.metric]} by {GROUPS[asked.group].lower()}" if asked else "",
        "group": GROUPS[asked.group] if asked else "",
        "shown": showing.shown(found, query) if found else None,
        "export": showing.export_query(asked) if asked else "",
        "filters": [
            (name, value, urlencode({key: query[key] for key in query if key != name}))
            for name, value in form.filters.items()
        ],
        "unpriced": unpriced.find(),
    }
    return render(request, "usage/report.html", context)


@operator_required
@require_GET
def price_list(request: HttpRequest) -> HttpResponse:
    """Show the operator's prices, and the models that have none."""
    return _prices(request, PriceForm(initial={"model": request.GET.get("model", "")}))


@operator_required
@require_POST
def set_price(request: HttpRequest) -> HttpResponse:
    """Set what a model costs."""
    form = PriceForm(request.POST)
    if not form.is_valid():
        return _prices(request, form)
    price = pricelist.put(by=request.user.get_username(), **form.told())
    messages.success(request, f"The price of {price.model} is set; it counts for new requests.")
    return redirect("usage:prices")


@operator_required
@require_POST
def remove_price(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a price out."""
    price = get_object_or_404(Price, pk=pk)
    if pricelist.remove(price, by=request.user.get_username()):
        messages.success(request, f"The price of {price.model} is removed.")
    return redirect("usage:prices")


@operator_required
@require_POST
def reprice(request: HttpRequest) -> HttpResponse:
    """Have the prices in force put on records of the past, by a worker."""
    form = RepriceForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Give the day from which on records shall be priced anew.")
        return redirect("usage:prices")
    try:
        tasks.reprice.delay(
            form.since_moment().isoformat(),
            timezone.now().isoformat(),
            by=request.user.get_username(),
            only_unknown=form.cleaned_data["only_unknown"],
        )
    except OperationalError:
        messages.error(request, "Redis does not answer, so nothing was begun; try again later.")
        return redirect("usage:prices")
    messages.success(request, "The records are being priced; the journal says when it is done.")
    return redirect("usage:prices")


def _report(form: ReportForm) -> tuple[Question | None, Report | None]:
    asked = form.question()
    if asked is None:
        return None, None
    try:
        return asked, reports.report(asked)
    except BadReport as error:
        form.refuse(error)
        return None, None


def _prices(request: HttpRequest, form: PriceForm) -> HttpResponse:
    context = {
        "form": form,
        "reprice": RepriceForm(),
        "prices": Price.objects.all(),
        "unpriced": unpriced.find(),
    }
    return render(request, "usage/prices.html", context)
