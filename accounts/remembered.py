"""Why a limit holds that was told before its account was set aside, from the journal."""

from __future__ import annotations

from datetime import datetime

from accounts.states import STILL_LIMITED
from events.models import Event

TOLD_BY = ("account.limit", "account.limit_shortened")


def reason(subject: str, until: datetime | None) -> str:
    """Return the reason of the limit that an account has until then."""
    told = Event.objects.filter(subject=subject, kind__in=TOLD_BY).order_by("-id").first()
    if told is None or until is None or told.data.get("limited_until") != until.isoformat():
        return STILL_LIMITED
    return str(told.data.get("reason") or STILL_LIMITED)
