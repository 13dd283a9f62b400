"""Addresses of the session pages, under /sessions/."""

from __future__ import annotations

from django.urls import path

from sessions_limit import session_views

app_name = "sessions"
urlpatterns = [
    path("", session_views.session_list, name="list"),
    path("<slug:uid>/revoke/", session_views.revoke, name="revoke"),
    path("revoke/key/<int:pk>/", session_views.revoke_of_key, name="revoke_of_key"),
    path(
        "revoke/address/<str:address>/", session_views.revoke_of_address, name="revoke_of_address"
    ),
    path("revoke/everything/", session_views.revoke_everything, name="revoke_everything"),
]
