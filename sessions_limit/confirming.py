"""The question that Django admin asks before keys or sessions are revoked."""

from __future__ import annotations

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from lib.read_only import ReadOnly
from sessions_limit.showing import Shown


def is_confirmed(request: HttpRequest) -> bool:
    """Tell whether somebody has seen what `ask` shows, and wants it."""
    return "confirmed" in request.POST


def ask(
    admin_of: ReadOnly, request: HttpRequest, action: str, sessions: list[Shown], keys: int = 0
) -> HttpResponse:
    """Show how many sessions and streams, or keys, an action ends; the form sends it once more."""
    lives = [one for one in sessions if one.lives]
    context = admin_of.admin_site.each_context(request) | {
        "title": "Revoke keys?" if keys else "Revoke sessions?",
        "opts": admin_of.opts,
        "action": action,
        "chosen": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "chosen_name": ACTION_CHECKBOX_NAME,
        "is_across": request.POST.get("select_across", "0"),
        "keys": keys,
        "living": len(lives),
        "ended": len(sessions) - len(lives),
        "streams": sum(one.streams for one in lives),
    }
    return TemplateResponse(request, "sessions_limit/admin_revoke.html", context)
