"""The address of the journal, under /events/."""

from __future__ import annotations

from django.urls import path

from events import views

app_name = "events"
urlpatterns = [path("", views.event_list, name="list")]
