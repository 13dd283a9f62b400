"""What the page of alerts does with rules."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from events import rulebook
from events.errors import Refused
from events.forms import RuleForm
from events.models import Channel, Rule
from lib.access import operator_required


@operator_required
@require_http_methods(["GET", "POST"])
def create(request: HttpRequest) -> HttpResponse:
    """Make a rule; what comes first in the form is what needs somebody."""
    if not Channel.objects.filter(removed_at=None).exists():
        messages.info(request, "Add a channel first: a rule sends to one.")
        return redirect("alerts:list")
    form = RuleForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            rule = rulebook.create(by=request.user.get_username(), **form.cleaned_data)
        except Refused as error:
            form.add_error(error.field or None, str(error))
        else:
            messages.success(request, f"“{rule.name}” is made.")
            return redirect("alerts:list")
    return render(request, "events/rule.html", {"form": form})


@operator_required
@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    """Change a rule."""
    rule = get_object_or_404(Rule, pk=pk)
    form = RuleForm(request.POST if request.method == "POST" else None, initial=RuleForm.of(rule))
    if request.method == "POST" and form.is_valid():
        try:
            rulebook.update(rule, by=request.user.get_username(), **form.cleaned_data)
        except Refused as error:
            form.add_error(error.field or None, str(error))
        else:
            messages.success(request, f"“{form.cleaned_data['name']}” is changed.")
            return redirect("alerts:list")
    return render(request, "events/rule.html", {"form": form, "rule": rule})


@operator_required
@require_http_methods(["GET", "POST"])
def switch(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    """Enable or disable a rule."""
    if request.method == "POST":
        rule = get_object_or_404(Rule, pk=pk)
        try:
            rulebook.update(rule, by=request.user.get_username(), enabled=verb == "enable")
        except Refused as error:
            messages.error(request, str(error))
        else:
            messages.success(request, f"“{rule.name}” is {verb}d.")
    return redirect("alerts:list")


@operator_required
@require_http_methods(["GET", "POST"])
def remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask once, then remove a rule."""
    rule = get_object_or_404(Rule, pk=pk)
    if request.method == "GET":
        return render(request, "events/rule_remove.html", {"rule": rule})
    rulebook.remove(rule, by=request.user.get_username())
    messages.success(request, f"“{rule.name}” is removed.")
    return redirect("alerts:list")
