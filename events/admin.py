"""The journal in Django admin: to read, not to change."""

from __future__ import annotations

from django.contrib import admin

from events import auditing  # noqa: F401  (listens from here on)
from events.models import Event
from lib.read_only import ReadOnly

# What is deleted at once leaves no trace in the journal; one by one it does.
admin.site.disable_action("delete_selected")


@admin.register(Event)
class EventAdmin(ReadOnly):
    """Events, newest first."""

    list_display = ("at", "kind", "subject", "by")
    list_filter = ("kind",)
    search_fields = ("subject", "by")
