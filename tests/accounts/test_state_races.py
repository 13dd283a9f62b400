"""Two at once, one between the other's reading and writing: what each of them still does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from accounts import enrolment, health, lifecycle
from accounts.enrolment import Login
from accounts.errors import TryLater
from accounts.models import Account
from accounts.oauth import Grant
from accounts.states import Kind
from tests.support.workers import Worker

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def worker() -> Iterator[Worker]:
    running = Worker()
    yield running
    running.end()


def link(token: str) -> Account:
    login = Login(Kind.OAUTH, Grant(token, token, None), account_uuid="u", organization_uuid="o")
    with transaction.atomic():
        return enrolment.enrol(login, name="ada", by="ada", now=timezone.now())


def test_a_limit_noted_while_an_account_is_enabled_is_not_forgotten(worker: Worker) -> None:
    account = lifecycle.disable(link("one"), by="ada")
    until = timezone.now() + timedelta(hours=1)

    worker.begin(lambda: lifecycle.enable(account, by="ada"))
    health.limit(account.pk, until, "rate_limit", observed_at=timezone.now())
    worker.go_on()

    assert isinstance(worker.error, TryLater)
    assert Account.objects.get().limited_until == until
    assert lifecycle.enable(account, by="ada").status == "rate_limited"


def test_a_removal_counts_on_from_what_others_did_meanwhile(worker: Worker) -> None:
    account = link("one")

    worker.begin(lambda: lifecycle.remove(account, by="ada"))
    lifecycle.disable(account, by="grace")
    worker.go_on()

    assert worker.error is None
    assert Account.objects.get().state_version == 2


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite lets one transaction in")
def test_a_login_whose_account_is_removed_meanwhile_becomes_a_new_account(
    worker: Worker,
) -> None:
    removed = link("one")

    worker.begin(lambda: link("two"))
    lifecycle.remove(removed, by="grace")
    worker.go_on()
    while worker.busy:
        worker.go_on()

    assert worker.error is None
    assert Account.objects.get(deleted_at=None).credential is not None
    assert Account.objects.get(pk=removed.pk).credential is None
