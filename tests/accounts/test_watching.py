"""The pool as a whole: exhausted, degraded, and well again; announced once each."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts.models import Account, Credential
from accounts.states import Kind, Status
from accounts.watching import watch_pool
from events.models import Condition, Event

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
pytestmark = pytest.mark.django_db


def put(name: str, status: Status = Status.ACTIVE, **columns: Any) -> Account:
    account = Account.objects.create(name=name, kind=Kind.API_KEY, status=status, **columns)
    credential = Credential.objects.create(
        id=uuid.uuid4(), account=account, grant=1, generation=1, access_token="sk-ant-api03-x"
    )
    Account.objects.filter(pk=account.pk).update(credential=credential)
    return account


def change(account: Account, **columns: Any) -> None:
    Account.objects.filter(pk=account.pk).update(**columns)


def told() -> list[str]:
    return list(Event.objects.order_by("id").values_list("kind", flat=True))


def test_a_pool_without_a_usable_account_is_announced_with_its_earliest_return() -> None:
    put("a", Status.RATE_LIMITED, limited_until=NOW + 3 * HOUR)
    put("b", Status.RATE_LIMITED, limited_until=NOW + HOUR, cooldown_until=NOW + 2 * HOUR)
    put("c", Status.INACTIVE, limited_until=NOW + HOUR)

    watch_pool(NOW)
    watch_pool(NOW + timedelta(seconds=30))

    event = Event.objects.get()
    assert (event.kind, event.subject) == ("pool.exhausted", "pool")
    assert event.data["returns_at"] == (NOW + 2 * HOUR).isoformat()
    assert event.data["counts"] == {"inactive": 1, "rate_limited": 2}


def test_a_pool_that_a_request_would_wake_is_not_exhausted(settings: Any) -> None:
    idle = put("a", Status.INACTIVE, reason="idle")
    settings.CONFIG = settings.CONFIG.model_copy(update={"wake_idle": True})

    watch_pool(NOW)
    assert told() == []

    change(idle, limited_until=NOW + HOUR)
    watch_pool(NOW)
    change(idle, limited_until=None, reason="admin")
    watch_pool(NOW + HOUR)
    assert told() == ["pool.exhausted"]


def test_a_pool_that_does_not_return_by_itself_says_so() -> None:
    put("a", Status.INACTIVE)
    put("b", Status.INACTIVE)

    watch_pool(NOW)

    assert Event.objects.get().data["returns_at"] is None


def test_its_recovery_is_announced_with_the_minutes_it_took() -> None:
    account = put("a", Status.RATE_LIMITED, limited_until=NOW + HOUR)
    watch_pool(NOW)

    # The limit has passed: usable at once, whether the row was tidied or not.
    watch_pool(NOW + HOUR)
    watch_pool(NOW + HOUR)

    assert told() == ["pool.exhausted", "pool.recovered"]
    assert Event.objects.get(kind="pool.recovered").data["minutes"] == 60
    assert not Condition.objects.exists()
    change(account, limited_until=NOW + 3 * HOUR)
    watch_pool(NOW + HOUR)
    assert told()[-1] == "pool.exhausted"


def test_a_cooling_account_cannot_serve_until_it_has_rested() -> None:
    put("a", cooldown_until=NOW + timedelta(minutes=5))

    watch_pool(NOW)
    watch_pool(NOW + timedelta(minutes=5))

    assert told() == ["pool.exhausted", "pool.recovered"]


def test_an_account_whose_secret_is_missing_serves_nothing() -> None:
    change(put("a"), credential=None)

    watch_pool(NOW)

    assert told() == ["pool.exhausted"]


def test_an_empty_pool_is_not_exhausted_and_emptying_one_says_nothing() -> None:
    watch_pool(NOW)
    assert told() == []
    account = put("a", Status.INVALID)
    watch_pool(NOW)
    assert told() == ["pool.exhausted", "pool.degraded"]

    change(account, deleted_at=NOW)
    watch_pool(NOW)

    assert len(told()) == 2
    assert not Condition.objects.exists()


@pytest.mark.parametrize(("invalid", "valid", "degraded"), [(1, 1, True), (1, 2, False)])
def test_half_of_the_accounts_being_invalid_is_announced(
    invalid: int, valid: int, degraded: bool
) -> None:
    broken = [put(f"x{number}", Status.INVALID) for number in range(invalid)]
    for number in range(valid):
        put(f"v{number}")

    watch_pool(NOW)

    assert told() == (["pool.degraded"] if degraded else [])
    change(broken[0], status=Status.ACTIVE)
    watch_pool(NOW + HOUR)
    assert told() == (["pool.degraded", "pool.healed"] if degraded else [])
