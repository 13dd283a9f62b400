"""Request records in Django admin: to read, not to change."""

from __future__ import annotations

from django.contrib import admin

from lib.read_only import ReadOnly
from usage.models import RequestRecord


@admin.register(RequestRecord)
class RequestRecordAdmin(ReadOnly):
    """Relayed requests, newest first."""

    list_display = ("started_at", "model", "status", "ended", "account", "key", "attempts")
    list_filter = ("ended", "stream")
    search_fields = ("=request_id", "=session")
    list_select_related = ("account", "key")
    show_full_result_count = False
