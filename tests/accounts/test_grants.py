"""When a login ends, and how that is announced ahead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from accounts import adding, cards, grants, lifecycle
from accounts.grants import End
from accounts.models import Account
from events import conditions
from events.models import Condition, Event
from tests.support.simulator import Simulator

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
TOLD = datetime(2026, 3, 9, tzinfo=UTC)
CLAUDE_CODE = "user:inference user:sessions:claude_code"
DAYS = timedelta(days=1)


@pytest.mark.parametrize(
    ("kind", "scopes", "began", "told", "expected"),
    [
        ("oauth", CLAUDE_CODE, BEGAN, TOLD, End(TOLD, is_assumed=False)),
        ("oauth", CLAUDE_CODE, BEGAN, None, End(BEGAN + 30 * DAYS, is_assumed=True)),
        ("oauth", "user:inference", BEGAN, None, None),
        ("oauth", "user:sessions:claude_code_more", BEGAN, None, None),
        ("oauth", CLAUDE_CODE, None, None, None),
        ("setup_token", "", BEGAN, None, End(BEGAN + 365 * DAYS, is_assumed=True)),
        ("api_key", CLAUDE_CODE, BEGAN, None, None),
        ("compatible", "", BEGAN, None, None),
    ],
)
def test_the_end_of_a_login(
    kind: str, scopes: str, began: datetime | None, told: datetime | None, expected: End | None
) -> None:
    assert grants.end(kind, scopes, began, told) == expected


@pytest.fixture
def token(transactional_db: None, simulator: Simulator) -> Account:
    """Return a setup token that was linked on the day BEGAN."""
    return adding.add_secret("setup_token", "token", "sk-ant-oat01-one", by="ada", now=BEGAN)


def announced() -> list[Event]:
    return list(Event.objects.filter(kind="account.grant_ending").order_by("id"))


def test_an_end_is_announced_once_and_in_time(token: Account) -> None:
    end = BEGAN + 365 * DAYS

    assert grants.announce_ends(end - 5 * DAYS - timedelta(seconds=1)) == 0
    assert grants.announce_ends(end - 5 * DAYS) == 1
    assert grants.announce_ends(end - 4 * DAYS) == 0
    assert grants.announce_ends(end + DAYS) == 0

    (event,) = announced()
    assert event.subject == token.subject
    assert event.data == {"ends_at": end.isoformat(), "is_assumed": True, "days": 5}
    token.refresh_from_db()
    assert token.status == "active"


@pytest.mark.parametrize("heals", ["link", "remove"])
def test_linking_again_or_removing_ends_it(
    link: Callable[..., Account], transactional_db: None, heals: str
) -> None:
    account = link()
    ends_at = grants.end_of(account)
    assert ends_at is not None
    assert grants.announce_ends(ends_at.at - DAYS) == 1

    if heals == "link":
        link()
    else:
        lifecycle.remove(account, by="ada")
    assert grants.announce_ends() == 0

    assert not conditions.holds(grants.ENDING, account.subject)
    if heals == "link":
        assert grants.announce_ends(timezone.now() + 40 * DAYS) == 1
        assert Condition.objects.get().detail == "grant 2"


def test_the_end_of_a_login_that_is_dead_already_is_no_news(token: Account) -> None:
    Account.objects.update(status="invalid", reason="auth_rejected")

    assert grants.announce_ends(BEGAN + 364 * DAYS) == 0


def test_a_login_that_was_refused_for_a_while_is_announced_no_second_time(token: Account) -> None:
    assert grants.announce_ends(BEGAN + 361 * DAYS) == 1
    Account.objects.update(status="invalid", reason="auth_rejected")
    assert grants.announce_ends(BEGAN + 362 * DAYS) == 0
    Account.objects.update(status="active", reason="")

    assert grants.announce_ends(BEGAN + 363 * DAYS) == 0
    assert len(announced()) == 1


def test_a_card_shows_an_assumed_end(token: Account) -> None:
    (card,) = cards.load()

    assert card.ends == End(BEGAN + 365 * DAYS, is_assumed=True)
