"""The statistics say how the whole stands, and why not better."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from accounts import adding, cards, facts
from accounts.models import Account, Credential
from accounts.states import Kind
from lib.redis import for_jobs
from proxy_project import statistics
from tests.api.conftest import Call

pytestmark = pytest.mark.django_db


def test_a_pool_that_serves_is_healthy(call: Call, account: Account) -> None:
    told = call("GET", "/admin/statistics").body

    assert told["health"] == {"status": "healthy", "reasons": [], "worker_lag_seconds": None}
    assert told["accounts"] == {
        "total": 1,
        "usable": 1,
        "cooling_down": 0,
        "by_status": {"active": 1, "inactive": 0, "rate_limited": 0, "invalid": 0},
    }
    assert [window["name"] for window in told["pool"]] == ["5h", "7d"]


@pytest.mark.parametrize(
    ("changes", "health"),
    [
        ({"status": "invalid"}, "degraded"),
        ({"status": "rate_limited", "limited_until": timezone.now() + timedelta(1)}, "degraded"),
        ({"status": "inactive", "reason": "admin"}, "healthy"),
    ],
)
def test_one_account_of_two_that_is_away_degrades_the_pool(
    account: Account, changes: dict[str, Any], health: str
) -> None:
    adding.add_secret(Kind.API_KEY, "second", "sk-ant-api03-second", "ada")
    Account.objects.filter(pk=account.pk).update(**changes)

    assert statistics.load().health.status == health


def test_a_pool_that_cannot_serve_is_unhealthy(account: Account) -> None:
    Account.objects.update(status="invalid")
    useless = statistics.load().health
    Account.objects.update(deleted_at=timezone.now())
    empty = statistics.load().health

    assert (useless.status, useless.reasons) == (
        "unhealthy",
        ["No account can serve requests now."],
    )
    assert (empty.status, empty.reasons) == ("unhealthy", ["The pool is empty."])


@pytest.mark.parametrize(
    ("wakes", "changes", "health"),
    [
        (True, {}, "healthy"),
        (False, {}, "unhealthy"),
        (True, {"reason": "admin"}, "unhealthy"),
        (True, {"limited_until": timezone.now() + timedelta(1)}, "unhealthy"),
    ],
)
def test_a_pool_that_a_request_would_wake_is_healthy(
    account: Account, settings: Any, wakes: bool, changes: dict[str, Any], health: str
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"wake_idle": wakes})
    Account.objects.update(**({"status": "inactive", "reason": "idle"} | changes))

    assert statistics.load().health.status == health


def test_facts_that_wait_for_a_worker_degrade_it(account: Account) -> None:
    with contextlib.closing(for_jobs()) as client:
        client.xadd(facts.STREAM, {"d": "{}"}, id="1000000-0")

    health = statistics.load().health

    assert health.status == "degraded"
    assert health.worker_lag_seconds is not None
    assert health.worker_lag_seconds > 1000
    assert "worker" in health.reasons[0]


def test_a_redis_that_is_away_makes_it_unhealthy(account: Account, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    health = statistics.load().health

    assert (health.status, health.reasons) == ("unhealthy", ["Redis does not answer."])


def test_a_database_that_is_away_makes_it_unhealthy(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr(cards, "load", away)

    told = statistics.load()

    assert told.health.status == "unhealthy"
    assert told.health.reasons == ["The database does not answer."]
    assert told.accounts.total == 0


def test_logins_that_need_watching_are_named(account: Account) -> None:
    now = timezone.now()
    Credential.objects.update(expires_at=now + timedelta(minutes=10))
    Account.objects.update(refresh_failures=2, grant_ends_at=now + timedelta(days=4))

    soon = statistics.load(now).tokens
    Credential.objects.update(expires_at=now + timedelta(hours=1))
    Account.objects.update(refresh_failures=0, grant_ends_at=now + timedelta(days=6))
    later = statistics.load(now).tokens

    pk = account.pk
    assert (soon.expiring_soon, soon.refresh_failing, soon.grants_ending) == ([pk], [pk], [pk])
    assert (later.expiring_soon, later.refresh_failing, later.grants_ending) == ([], [], [])
