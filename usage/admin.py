"""Request records in Django admin: to read, not to change."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from usage.models import RequestRecord


@admin.register(RequestRecord)
class RequestRecordAdmin(admin.ModelAdmin[RequestRecord]):
    """Relayed requests, newest first."""

    list_display = ("started_at", "model", "status", "ended", "account", "key", "attempts")
    list_filter = ("ended", "stream")
    search_fields = ("=request_id", "=session")
    list_select_related = ("account", "key")
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody writes records by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: RequestRecord | None = None) -> bool:
        """Nobody changes records."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: RequestRecord | None = None) -> bool:
        """Records end by their age, not by hand."""
        return False
