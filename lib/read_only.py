"""Tables of Django admin that are looked at; what may change a row are the verbs of its app."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest


class ReadOnly(admin.ModelAdmin[Any]):
    """A table to look at: a row that is saved whole could overwrite what is newer."""

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
        """Whoever may change such rows may use the actions on them."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Rows come from the verbs."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nothing is edited by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nothing is deleted by hand: the verbs know what must stay."""
        return False
