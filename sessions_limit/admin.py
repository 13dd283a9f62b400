"""Keys, sessions and revocations in Django admin: to read, and to revoke."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from lib.read_only import ReadOnly
from sessions_limit import issuing, revoking, showing
from sessions_limit.confirming import ask, is_confirmed
from sessions_limit.models import ClientKey, ClientSession, Revocation
from sessions_limit.showing import Shown

CUT = 13


@admin.register(ClientKey)
class ClientKeyAdmin(ReadOnly):
    """Keys, newest first; the key itself and its hash are never shown."""

    hidden = ("hash", "previous_hash")
    list_display = (
        "name",
        "owner",
        "hint",
        "enabled",
        "passthrough",
        "max_sessions",
        "created_at",
        "created_by",
        "expires_at",
        "revoked_at",
        "last_used_at",
    )
    list_filter = ("enabled", "passthrough")
    search_fields = ("name", "owner", "hint", "created_by")
    readonly_fields = ("hint", "overlaps_until", "last_addresses")
    actions = ("revoke", "revoke_sessions")

    @admin.action(description="Revoke the chosen keys", permissions=["operate"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ClientKey]) -> HttpResponse | None:
        """End the chosen keys for good."""
        chosen = queryset.filter(revoked_at=None)
        if not is_confirmed(request) and chosen:
            return ask(self, request, "revoke", _open_now(chosen), keys=len(chosen))
        revoked = sum(issuing.revoke(key, by=request.user.get_username()) for key in chosen)
        messages.success(request, f"Revoked: {revoked}.")
        return None

    @admin.action(description="Revoke the sessions of the chosen keys", permissions=["operate"])
    def revoke_sessions(
        self, request: HttpRequest, queryset: QuerySet[ClientKey]
    ) -> HttpResponse | None:
        """End what the chosen keys have open; the keys stay good."""
        if not is_confirmed(request):
            return ask(self, request, "revoke_sessions", _open_now(queryset))
        by = request.user.get_username()
        revoked = sum(revoking.revoke_sessions_of_key(key, by) for key in queryset)
        messages.success(request, f"Revoked sessions: {revoked}.")
        return None


class State(admin.SimpleListFilter):
    """Living sessions, or ended ones."""

    title, parameter_name = "state", "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the two states."""
        return [("living", "living"), ("ended", "ended")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[ClientSession]
    ) -> QuerySet[ClientSession]:
        """Return the sessions in the chosen state."""
        if self.value() not in ("living", "ended"):
            return queryset
        return queryset.filter(ended_at__isnull=self.value() == "living")


class SessionList(ChangeList):
    """A page of sessions; what they have under way is asked for once."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, and put beside each row what it has under way."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        for one in showing.shown(self.result_list):
            vars(one.row)["now"] = one


@admin.register(ClientSession)
class ClientSessionAdmin(ReadOnly):
    """Sessions, the last seen first."""

    list_display = (
        "conversation",
        "client",
        "key",
        "address",
        "user_agent",
        "account",
        "started_at",
        "last_seen_at",
        "requests",
        "in_flight",
        "streams",
        "state",
        "ended",
    )
    list_select_related = ("key", "account")
    list_filter = (State, "ended", "last_seen_at")
    search_fields = ("uid", "client", "session", "address", "key__name")
    readonly_fields = ("in_flight", "streams", "state")
    actions = ("revoke",)
    show_full_result_count = False

    @admin.action(description="Revoke the chosen sessions", permissions=["operate"])
    def revoke(
        self, request: HttpRequest, queryset: QuerySet[ClientSession]
    ) -> HttpResponse | None:
        """Refuse the chosen sessions and end what runs of them."""
        if not is_confirmed(request):
            return ask(self, request, "revoke", showing.shown(queryset))
        by = request.user.get_username()
        revoked = sum(revoking.revoke_session(row, by) for row in queryset)
        messages.success(request, f"Revoked sessions: {revoked}.")
        return None

    @admin.display(description="session", ordering="session")
    def conversation(self, row: ClientSession) -> str:
        """Return the beginning of the session's id."""
        return row.session if len(row.session) <= CUT else f"{row.session[:CUT]}…"

    @admin.display
    def in_flight(self, row: ClientSession) -> int:
        """Return how many requests it has under way."""
        return _now(row).in_flight

    @admin.display(description="live streams")
    def streams(self, row: ClientSession) -> int:
        """Return how many of them are streams."""
        return _now(row).streams

    @admin.display(ordering="ended_at")
    def state(self, row: ClientSession) -> str:
        """Return whether it lives."""
        return "living" if row.ended_at is None else "ended"

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        """Return the list that asks once for all."""
        return SessionList


@admin.register(Revocation)
class RevocationAdmin(ReadOnly):
    """What is refused, and until when."""

    list_display = ("name", "target", "by", "made_at", "until")
    list_filter = ("until",)
    search_fields = ("name", "target", "by")
    ordering = ("-until",)


def _open_now(keys: QuerySet[ClientKey]) -> list[Shown]:
    return showing.shown(showing.found().filter(key__in=keys))


def _now(row: ClientSession) -> Shown:
    found: Shown = vars(row).get("now") or showing.shown([row])[0]
    return found
