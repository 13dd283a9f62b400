"""What the page of alerts does with channels."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from events import channels
from events.errors import Refused
from events.forms import ChannelEditForm, ChannelForm
from events.models import Channel, State
from events.views import alerts_page
from lib.access import operator_required


@sensitive_post_parameters("url")
@operator_required
@require_http_methods(["GET", "POST"])
def create(request: HttpRequest) -> HttpResponse:
    """Make a channel and show its signing secret, in this one answer only."""
    if request.method == "GET":  # its address, opened again
        return redirect("alerts:list")
    form = ChannelForm(request.POST)
    if not form.is_valid():
        return alerts_page(request, form)
    try:
        channel, secret = channels.create(by=request.user.get_username(), **form.cleaned_data)
    except Refused as error:
        form.add_error(error.field or None, str(error))
        return alerts_page(request, form)
    return render(request, "events/secret.html", {"channel": channel, "secret": secret})


@sensitive_post_parameters("url")
@operator_required
@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Change a channel's name or address."""
    channel = _find(pk)
    sent = request.POST if request.method == "POST" else None
    form = ChannelEditForm(sent, initial={"name": channel.name})
    if request.method == "POST" and form.is_valid():
        try:
            channels.update(channel, by=request.user.get_username(), **form.cleaned_data)
        except Refused as error:
            form.add_error(error.field or None, str(error))
        else:
            messages.success(request, f"“{form.cleaned_data['name']}” is changed.")
            return redirect("alerts:list")
    return render(request, "events/channel.html", {"channel": channel, "form": form})


@operator_required
@require_http_methods(["GET", "POST"])
def act(request: HttpRequest, pk: UUID, verb: str) -> HttpResponse:
    """Enable, disable or test a channel."""
    if request.method == "POST":
        VERBS[verb](request, _find(pk), request.user.get_username())
    return redirect("alerts:list")


@operator_required
@require_http_methods(["GET", "POST"])
def renew_secret(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Ask once, then make a new signing secret and show it."""
    channel = _find(pk)
    if request.method == "GET":
        return render(request, "events/channel_secret.html", {"channel": channel})
    try:
        secret = channels.renew_secret(channel, by=request.user.get_username())
    except Refused as error:
        messages.error(request, str(error))
        return redirect("alerts:list")
    return render(request, "events/secret.html", {"channel": channel, "secret": secret})


@operator_required
@require_http_methods(["GET", "POST"])
def remove(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Ask once, then remove a channel with its rules."""
    channel = _find(pk)
    if request.method == "GET":
        return render(request, "events/channel_remove.html", {"channel": channel})
    channels.remove(channel, by=request.user.get_username())
    messages.success(request, f"“{channel.name}” is removed.")
    return redirect("alerts:list")


def _enable(request: HttpRequest, channel: Channel, by: str) -> None:
    channels.enable(channel, by=by)
    messages.success(request, f"“{channel.name}” is enabled.")


def _disable(request: HttpRequest, channel: Channel, by: str) -> None:
    channels.disable(channel, by=by)
    messages.success(request, f"“{channel.name}” is disabled: it gets no more alerts.")


def _test(request: HttpRequest, channel: Channel, by: str) -> None:
    row = channels.test(channel, by=by)
    if row.state == State.DELIVERED:
        messages.success(request, f"“{channel.name}” took the test alert ({row.last_status}).")
    else:
        messages.error(request, f"“{channel.name}” did not take the test alert: {row.last_error}.")


VERBS = {"enable": _enable, "disable": _disable, "test": _test}


def _find(pk: UUID) -> Channel:
    return get_object_or_404(Channel, pk=pk, removed_at=None)
