"""Addresses of the alert pages, under /alerts/."""

from __future__ import annotations

from django.urls import path

from events import channel_views, rule_views, views

app_name = "alerts"
urlpatterns = [
    path("", views.alert_list, name="list"),
    path("channels/", channel_views.create, name="channel_create"),
    path("channels/<uuid:pk>/", channel_views.edit, name="channel"),
    path("channels/<uuid:pk>/secret/", channel_views.renew_secret, name="channel_secret"),
    path("channels/<uuid:pk>/remove/", channel_views.remove, name="channel_remove"),
    path("channels/<uuid:pk>/enable/", channel_views.act, {"verb": "enable"}, "channel_enable"),
    path("channels/<uuid:pk>/disable/", channel_views.act, {"verb": "disable"}, "channel_disable"),
    path("channels/<uuid:pk>/test/", channel_views.act, {"verb": "test"}, "channel_test"),
    path("rules/create/", rule_views.create, name="rule_create"),
    path("rules/<int:pk>/", rule_views.edit, name="rule"),
    path("rules/<int:pk>/remove/", rule_views.remove, name="rule_remove"),
    path("rules/<int:pk>/enable/", rule_views.switch, {"verb": "enable"}, "rule_enable"),
    path("rules/<int:pk>/disable/", rule_views.switch, {"verb": "disable"}, "rule_disable"),
]
