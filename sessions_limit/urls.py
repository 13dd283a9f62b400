"""Addresses of the key pages, under /keys/."""

from __future__ import annotations

from django.urls import path

from sessions_limit import views

app_name = "keys"
urlpatterns = [
    path("", views.key_list, name="list"),
    path("create/", views.create, name="create"),
    path("<int:pk>/revoke/", views.revoke, name="revoke"),
]
