"""Accounts in Django admin: to read; what moves them are the verbs."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts import lifecycle
from accounts.errors import AccountError
from accounts.models import Account, Credential, LimitWindow, LinkFlow
from lib.read_only import ReadOnly


@admin.register(Account)
class AccountAdmin(ReadOnly):
    """Accounts; enabled and disabled by the same verbs as in the console."""

    list_display = (
        "name",
        "kind",
        "status",
        "reason",
        "plan",
        "email",
        "limited_until",
        "last_used_at",
        "deleted_at",
    )
    list_filter = ("status", "kind", "plan")
    search_fields = ("name", "email", "organization_name")
    hidden = ("secret_hash",)
    actions = ("enable", "disable")

    @admin.action(description="Enable the chosen accounts", permissions=["operate"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Account]) -> None:
        """Enable each chosen account that can be."""
        _each(request, queryset, lifecycle.enable, "Enabled")

    @admin.action(description="Disable the chosen accounts", permissions=["operate"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Account]) -> None:
        """Disable each chosen account that can be."""
        _each(request, queryset, lifecycle.disable, "Disabled")


@admin.register(Credential)
class CredentialAdmin(ReadOnly):
    """Generations of credentials; the secrets themselves are never shown."""

    list_display = ("account", "grant", "generation", "expires_at", "obtained_at")
    list_select_related = ("account",)
    hidden = ("access_token", "refresh_token")


@admin.register(LimitWindow)
class LimitWindowAdmin(ReadOnly):
    """What is known of limit windows."""

    list_display = ("account", "name", "status", "utilization", "reset_at", "observed_at")
    list_select_related = ("account",)
    list_filter = ("name", "status")


@admin.register(LinkFlow)
class LinkFlowAdmin(ReadOnly):
    """Logins begun in the console; their secrets are never shown."""

    list_display = ("by", "created_at", "expires_at", "used_at", "confirmed_at", "account")
    list_select_related = ("account",)
    hidden = ("state", "verifier", "session", "answer")


def _each(
    request: HttpRequest,
    accounts: QuerySet[Account],
    verb: Callable[..., object],
    done: str,
) -> None:
    moved = 0
    for account in accounts.filter(deleted_at=None):
        try:
            moved += bool(verb(account, by=request.user.get_username()))
        except AccountError as error:
            messages.error(request, f"{account.name}: {error}")
    messages.success(request, f"{done}: {moved}.")
