"""Relay keys in Django admin: to read and to revoke."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from sessions_limit import keys
from sessions_limit.models import ClientKey


@admin.register(ClientKey)
class ClientKeyAdmin(admin.ModelAdmin[ClientKey]):
    """Keys, newest first; the key itself and its hash are never shown."""

    list_display = (
        "name",
        "hint",
        "enabled",
        "created_at",
        "created_by",
        "expires_at",
        "revoked_at",
        "last_used_at",
    )
    list_filter = ("enabled",)
    search_fields = ("name", "hint", "created_by")
    exclude = ("hash",)
    actions = ("revoke",)

    @admin.action(description="Revoke the chosen keys", permissions=["operate"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ClientKey]) -> None:
        """End the chosen keys for good."""
        revoked = sum(keys.revoke(key, by=request.user.get_username()) for key in queryset)
        messages.success(request, f"Revoked: {revoked}.")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whoever may change keys may revoke them."""
        return request.user.has_perm("sessions_limit.change_clientkey")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Let nobody guess a hidden column by filtering the list on it."""
        column = lookup.partition("__")[0]
        return column not in (self.exclude or ()) and super().lookup_allowed(lookup, value, request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Keys are made on the key page, which shows them once."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: ClientKey | None = None) -> bool:
        """Nothing of a key is edited by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ClientKey | None = None) -> bool:
        """A revoked key stays, so that its records keep their name."""
        return False
