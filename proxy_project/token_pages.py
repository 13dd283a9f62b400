"""The pages of the admin tokens: list, create (shown once), revoke."""

from __future__ import annotations

from datetime import datetime, timedelta

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from lib import names
from lib.access import operator_required
from proxy_project import tokens
from proxy_project.models import AdminToken

LIFETIMES = (("30", "30 days"), ("90", "90 days"), ("365", "a year"), ("", "never expires"))
TONES = {"active": "active", "revoked": "invalid", "expired": "inactive"}


class TokenForm(forms.Form):
    """What a new token is called and how long it lives."""

    name = forms.CharField(max_length=100, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    lifetime = forms.ChoiceField(choices=LIFETIMES, required=False, label="Expires after")

    def clean_name(self) -> str:
        """Take out what cannot be seen, such as marks that turn the text around."""
        name = names.plain(self.cleaned_data["name"])
        if not name:
            raise forms.ValidationError("Give the token a name that can be read.")
        return name

    def expires_at(self, now: datetime | None = None) -> datetime | None:
        """Return the end of the wanted life; None for a token without one."""
        days = self.cleaned_data["lifetime"]
        return (now or timezone.now()) + timedelta(days=int(days)) if days else None


@operator_required
@require_GET
def token_list(request: HttpRequest) -> HttpResponse:
    """Show every token of the admin API."""
    return _list(request, TokenForm())


@operator_required
@require_http_methods(["GET", "POST"])
def create(request: HttpRequest) -> HttpResponse:
    """Make a token and show it, in this one answer only."""
    if request.method == "GET":  # its address, opened again
        return redirect("tokens")
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _list(request, form)
    token, plaintext = tokens.create(
        form.cleaned_data["name"], by=request.user.get_username(), expires_at=form.expires_at()
    )
    context = {"token": token, "plaintext": plaintext}
    return render(request, "proxy_project/tokens_created.html", context)


@operator_required
@require_http_methods(["GET", "POST"])
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask once, then end a token for good."""
    token = get_object_or_404(AdminToken, pk=pk)
    if request.method == "GET":
        return render(request, "proxy_project/tokens_revoke.html", {"token": token})
    if tokens.revoke(token, by=request.user.get_username()):
        messages.success(request, f"The token “{token.name}” is revoked.")
    else:
        messages.info(request, f"The token “{token.name}” was revoked before.")
    return redirect("tokens")


def _list(request: HttpRequest, form: TokenForm) -> HttpResponse:
    now = timezone.now()
    rows = [
        {"token": token, "state": token.state(now), "tone": TONES[token.state(now)]}
        for token in AdminToken.objects.all()
    ]
    return render(request, "proxy_project/tokens.html", {"rows": rows, "form": form})
