"""The journal in Django admin: to read, not to change."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from events import auditing  # noqa: F401  (listens from here on)
from events.models import Event

# What is deleted at once leaves no trace in the journal; one by one it does.
admin.site.disable_action("delete_selected")


@admin.register(Event)
class EventAdmin(admin.ModelAdmin[Event]):
    """Events, newest first."""

    list_display = ("at", "kind", "subject", "by")
    list_filter = ("kind",)
    search_fields = ("subject", "by")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody writes the journal by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        """Nobody changes the journal."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        """Nobody deletes from the journal."""
        return False
