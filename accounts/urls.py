"""Addresses of the account pages, under /accounts/."""

from __future__ import annotations

from django.urls import path

from accounts import setting_views, views

app_name = "accounts"
urlpatterns = [
    path("", views.account_list, name="list"),
    path("add/", views.add, name="add"),
    path("link/", views.link, name="link"),
    path("link/<uuid:flow_id>/", views.link_flow, name="link_flow"),
    path("link/<uuid:flow_id>/confirm/", views.confirm, name="confirm"),
    path("<int:pk>/enable/", views.act, {"verb": "enable"}, name="enable"),
    path("<int:pk>/disable/", views.act, {"verb": "disable"}, name="disable"),
    path("<int:pk>/clear/", views.act, {"verb": "clear"}, name="clear"),
    path("<int:pk>/refresh/", views.act, {"verb": "refresh"}, name="refresh"),
    path("<int:pk>/retry/", views.act, {"verb": "retry"}, name="retry"),
    path("<int:pk>/test/", views.test, name="test"),
    path("<int:pk>/settings/", setting_views.change, name="settings"),
    path("<int:pk>/remove/", views.remove, name="remove"),
]
