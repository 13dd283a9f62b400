"""An account that returns while a limit still holds says which one that is."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from accounts import adding, cards, health, lifecycle
from accounts.models import Account
from accounts.states import Status

UNTIL = timezone.now() + timedelta(hours=2)
pytestmark = pytest.mark.django_db


@pytest.fixture
def limited() -> Account:
    account = adding.add_secret("api_key", "key", "sk-ant-api03-key", by="ada")
    limit(account)
    return account


def limit(account: Account, until: datetime = UNTIL, reason: str = "limit_reached (5h)") -> None:
    health.limit(account.pk, until, reason, observed_at=timezone.now())


def stands(account: Account) -> tuple[str, str, str]:
    account.refresh_from_db()
    (card,) = cards.load(pk=account.pk)
    return account.status, account.reason, card.why


def test_the_limit_of_before_is_named_again_when_an_operator_enables_it(limited: Account) -> None:
    lifecycle.enable(lifecycle.disable(limited, by="ada"), by="ada")

    assert stands(limited) == (
        Status.RATE_LIMITED,
        "limit_reached (5h)",
        "What its plan allows is spent: the 5-hour window.",
    )


@pytest.mark.django_db(transaction=True)
def test_it_is_named_again_when_an_invalid_account_is_tried_and_works(limited: Account) -> None:
    health.refuse(limited.pk, "auth_rejected", credential=None)
    lifecycle.retry(limited, by="ada")

    assert stands(limited)[:2] == (Status.RATE_LIMITED, "limit_reached (5h)")


def test_a_limit_that_was_told_while_it_was_out_is_said_to_hold(limited: Account) -> None:
    lifecycle.disable(limited, by="ada")
    limit(limited, UNTIL + timedelta(days=3), "limit_reached (7d)")
    lifecycle.enable(limited, by="ada")

    assert stands(limited) == (
        Status.RATE_LIMITED,
        "still_limited",
        "A limit that it met while it was out still holds.",
    )


def test_a_reason_that_is_too_long_is_cut_and_keeps_no_limit_from_being_written(
    limited: Account,
) -> None:
    names = ", ".join(f"7d_{number:029}" for number in range(16))
    limit(limited, UNTIL + timedelta(days=3), f"limit_reached ({names})")

    limited.refresh_from_db()
    assert limited.limited_until == UNTIL + timedelta(days=3)
