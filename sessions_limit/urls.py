"""Addresses of the key pages, under /keys/."""

from __future__ import annotations

from django.urls import path

from sessions_limit import key_views, views

app_name = "keys"
urlpatterns = [
    path("", views.key_list, name="list"),
    path("create/", views.create, name="create"),
    path("<int:pk>/", key_views.key, name="key"),
    path("<int:pk>/terms/", key_views.change, name="terms"),
    path("<int:pk>/rotate/", key_views.rotate, name="rotate"),
    path("<int:pk>/enable/", key_views.enable, name="enable"),
    path("<int:pk>/disable/", key_views.disable, name="disable"),
    path("<int:pk>/revoke/", key_views.revoke, name="revoke"),
]
