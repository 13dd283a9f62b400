"""Tables of Django admin that are read, and asked about before something of them is revoked."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from sessions_limit.showing import Shown


class ReadOnly(admin.ModelAdmin[Any]):
    """A table to look at; what may change a row are the verbs."""

    # What never leaves the database: it is not shown, and nobody may filter by it.
    hidden: tuple[str, ...] = ()

    def get_exclude(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """Leave out what is never shown."""
        return self.hidden

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Leave it in the database."""
        return super().get_queryset(request).defer(*self.hidden)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Let nobody guess a hidden column by filtering the list on it."""
        column = lookup.partition("__")[0]
        return column not in self.hidden and super().lookup_allowed(lookup, value, request)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whoever may change such rows may revoke them."""
        return request.user.has_perm(f"sessions_limit.change_{self.opts.model_name}")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody makes such a row by hand: keys are made on the key page, which shows them once."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nothing is edited by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """What was revoked stays, so that the records keep its name."""
        return False


def is_confirmed(request: HttpRequest) -> bool:
    """Tell whether somebody has seen what `ask` shows, and wants it."""
    return "confirmed" in request.POST


def ask(
    admin_of: ReadOnly, request: HttpRequest, action: str, sessions: list[Shown]
) -> HttpResponse:
    """Show how many sessions and live streams an action ends; the form sends it once more."""
    lives = [one for one in sessions if one.lives]
    context = admin_of.admin_site.each_context(request) | {
        "title": "Revoke sessions?",
        "opts": admin_of.opts,
        "action": action,
        "chosen": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "chosen_name": ACTION_CHECKBOX_NAME,
        "is_across": request.POST.get("select_across", "0"),
        "living": len(lives),
        "ended": len(sessions) - len(lives),
        "streams": sum(one.streams for one in lives),
    }
    return TemplateResponse(request, "sessions_limit/admin_revoke.html", context)
