"""What operators change in Django admin is an event too."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from events.models import Event

PASSWORD = "a long enough phrase 42"
pytestmark = pytest.mark.django_db


def test_users_that_are_added_changed_and_deleted_in_admin_are_events(
    admin_client: Client,
) -> None:
    form = {"username": "bob", "usable_password": "true"}
    admin_client.post(
        "/admin/auth/user/add/", form | dict.fromkeys(("password1", "password2"), PASSWORD)
    )
    bob = User.objects.get(username="bob")
    page = f"/admin/auth/user/{bob.pk}/"
    change = {"username": "bob", "is_staff": "on", "is_active": "on"}
    change |= {"date_joined_0": "2026-11-20", "date_joined_1": "12:00:00"}
    admin_client.post(f"{page}change/", change)
    admin_client.post(f"{page}delete/", {"post": "yes"})

    events = list(Event.objects.order_by("id"))
    assert [event.kind for event in events] == ["admin.added", "admin.changed", "admin.deleted"]
    assert {(event.subject, event.by) for event in events} == {(f"user:{bob.pk}", "admin")}
    assert "Staff status" in events[1].data["what"]
    assert not any(PASSWORD in str(event.data) for event in events)


def test_nothing_can_be_deleted_past_the_journal(admin_client: Client) -> None:
    bob = User.objects.create_user("bob")
    User.objects.create_user("eve")
    every = list(User.objects.exclude(username="admin").values_list("pk", flat=True))

    admin_client.post(
        "/admin/auth/user/", {"action": "delete_selected", "_selected_action": every, "post": "yes"}
    )

    assert User.objects.filter(pk=bob.pk).exists()
