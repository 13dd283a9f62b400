"""The journal: what happened, written with it or not at all."""

from __future__ import annotations

import pytest
from django.db import transaction

from events import journal
from events.models import Event


@pytest.mark.django_db
def test_an_event_says_what_happened_to_whom_by_whom() -> None:
    journal.record("key.create", "key:1", by="ada", name="laptop", more=[1, None, "é"])

    event = Event.objects.get()
    assert (event.kind, event.subject, event.by) == ("key.create", "key:1", "ada")
    assert event.data == {"name": "laptop", "more": [1, None, "é"]}
    assert str(event) == "key.create key:1"


@pytest.mark.django_db
def test_nobody_in_particular_is_the_system() -> None:
    assert journal.record("account.recover", "account:1").by == "system"


@pytest.mark.django_db
def test_the_newest_event_comes_first() -> None:
    for number in range(3):
        journal.record("key.create", f"key:{number}")

    assert [event.subject for event in Event.objects.all()] == ["key:2", "key:1", "key:0"]


@pytest.mark.django_db(transaction=True)
def test_what_did_not_happen_is_not_in_the_journal() -> None:
    with transaction.atomic():
        journal.record("key.create", "key:1")
        transaction.set_rollback(True)

    assert not Event.objects.exists()


@pytest.mark.django_db
def test_an_event_that_is_no_plain_data_is_refused() -> None:
    with pytest.raises(TypeError), transaction.atomic():
        journal.record("key.create", "key:1", secret=object())
