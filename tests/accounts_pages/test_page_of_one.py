"""The page of one account: its windows, forecasts, states, models and history."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import adding
from accounts.models import Account, LimitWindow, WindowSample
from accounts.states import Kind, Trigger
from events import journal
from events.models import Event
from relay.models import ModelList
from relay.ramp import ramp
from tests.support.simulator import Simulator

HOSTILE = "<script>alert(1)</script>\"' onclick=x"
HOUR = timedelta(hours=1)
pytestmark = pytest.mark.django_db


def add(name: str = "ada", kind: Kind = Kind.SETUP_TOKEN) -> Account:
    account = adding.add_secret(Kind.SETUP_TOKEN, name, f"sk-ant-oat01-{name}", "anna")
    Account.objects.filter(pk=account.pk).update(kind=kind)
    return Account.objects.get(pk=account.pk)


def note(
    account: Account, name: str, used: float, reset: datetime, *, hour_ago: float | None = None
) -> None:
    now = timezone.now()
    LimitWindow.objects.create(
        account=account, name=name, utilization=used, reset_at=reset, observed_at=now
    )
    for ago, value in ((HOUR, hour_ago), (timedelta(0), used)):
        if hour_ago is not None and value is not None:
            WindowSample.objects.create(
                account=account, name=name, at=now - ago, utilization=value, reset_at=reset
            )


def read(client: Client, account: Account, query: str = "") -> str:
    return client.get(f"/accounts/{account.pk}/{query}").content.decode()


def test_a_window_says_how_far_it_is_used_when_it_resets_and_if_it_lasts(
    admin_client: Client,
) -> None:
    ada, now = add(), timezone.now()
    note(ada, "5h", 0.6, now + 2 * HOUR, hour_ago=0.3)
    note(ada, "7d", 0.4, now + 50 * HOUR, hour_ago=0.399)
    note(ada, "7d_oi", 0.0, now + 50 * HOUR)

    text = read(admin_client, ada)

    assert "60 %" in text
    assert "Runs out" in text
    assert re.search(r">in 1 h (20|19) min</time>", text)
    assert text.count("Lasts until its reset.") == 1
    assert "0 %" in text
    # The time of day, which the browser writes in the viewer's zone.
    assert re.search(f"data-clock>(\\w+ )?{now + 2 * HOUR:%H:%M} UTC<", text)


def test_a_spent_window_says_so_and_foretells_nothing(admin_client: Client) -> None:
    ada = add()
    note(ada, "5h", 1.0, timezone.now() + HOUR, hour_ago=0.9)

    text = read(admin_client, ada)

    assert "100 % · spent" in text
    assert "Runs out" not in text
    assert "Lasts" not in text


def test_the_limits_of_an_api_key_are_counts(admin_client: Client) -> None:
    key, now = add(kind=Kind.API_KEY), timezone.now()
    for name, left, reset in (("requests", 980, now + HOUR), ("tokens", 5, now - HOUR)):
        LimitWindow.objects.create(
            account=key, name=name, limit=1000, remaining=left, reset_at=reset, observed_at=now
        )

    text = read(admin_client, key)

    assert "980 of 1,000 left" in text
    assert "1,000, full again since" in text
    assert "5 hours" not in text


def test_what_happened_is_told_newest_first_and_older_pages_are_linked(
    admin_client: Client,
) -> None:
    ada = add()
    for number in range(60):
        journal.record("account.refreshed", ada.subject, by="job", number=number)
    journal.record("account.refreshed", "account:999", number=777)

    newest = read(admin_client, ada)
    older = Event.objects.filter(subject=ada.subject).order_by("-id")[49].pk
    second = read(admin_client, ada, f"?before={older}")

    assert newest.index("number: 59") < newest.index("number: 10")
    assert "number: 9 " not in newest.replace("<", " ")
    assert f"?before={older}#history" in newest
    assert "number: 9 " in second.replace("<", " ")
    assert "hx-get" not in second
    assert "number: 777" not in newest + second


@pytest.mark.parametrize("before", ["x", "-1", "9" * 30, "²"])
def test_an_odd_page_of_the_history_is_no_error(admin_client: Client, before: str) -> None:
    assert "was linked by anna" in read(admin_client, add(), f"?before={before}")


def test_its_models_are_shown_with_what_they_can_do(admin_client: Client) -> None:
    ada = add()
    nothing = read(admin_client, ada)
    can = {"image_input": {"supported": True}, "thinking": {"supported": False}}
    told = [{"id": HOSTILE, "max_input_tokens": 200_000, "capabilities": can}, {"id": "quiet"}]
    ModelList.objects.create(account=ada, data=told, fetched_at=timezone.now())

    text = " ".join(read(admin_client, ada).split())

    assert "taken to have every one" in nothing
    assert "<td>200,000</td> <td>yes</td> <td>no</td>" in text
    assert "<td>not said</td> <td>not said</td>" in text
    assert "<script>alert" not in text


def test_its_states_are_drawn_and_told(admin_client: Client) -> None:
    ada = add()
    Account.objects.update(created_at=timezone.now() - 30 * HOUR)
    ada.apply(Trigger.DISABLE, by="anna")
    Event.objects.filter(kind="account.disable").update(at=timezone.now() - 6 * HOUR)

    text = read(admin_client, ada)

    assert 'aria-label="States over the last 24 hours: active 18 h, inactive 6 h"' in text
    assert '<path class="strip-inactive"' in text


def test_hostile_texts_are_text(admin_client: Client) -> None:
    ada = add()
    texts = {"name": HOSTILE, "email": HOSTILE, "organization_name": HOSTILE, "plan": "<u>"}
    Account.objects.update(status="invalid", reason=HOSTILE, subscription_status="<u>", **texts)
    LimitWindow.objects.create(account=ada, name="<u>5h", observed_at=timezone.now())
    journal.record("account.odd<u>", ada.subject, by=HOSTILE, why=HOSTILE)

    for page in ("", "settings/", "cut/"):
        text = admin_client.get(f"/accounts/{ada.pk}/{page}").content.decode()
        assert "<script>alert" not in text
        assert "<u>" not in text
        assert "&lt;script&gt;alert" in text


def test_an_account_that_is_gone_has_no_page(admin_client: Client) -> None:
    ada = add()
    Account.objects.update(deleted_at=timezone.now())

    for page in ("", "settings/", "cut/"):
        assert admin_client.get(f"/accounts/{ada.pk}/{page}").status_code == 404


def test_what_changes_by_itself_is_sent_alone(admin_client: Client) -> None:
    answer = admin_client.get(f"/accounts/{add().pk}/", headers={"hx-request": "true"})

    text = answer.content.decode()
    assert "<html" not in text
    assert text.count("hx-swap-oob") == 1
    assert "Settings in force" not in text


def test_an_account_without_a_credential_has_a_page(admin_client: Client) -> None:
    ada = add(kind=Kind.OAUTH)
    Account.objects.update(credential=None)

    assert "unknown" in read(admin_client, ada)
    assert admin_client.get("/accounts/").status_code == 200


def test_a_button_of_the_page_leads_back_to_it(admin_client: Client) -> None:
    ada = add()

    answer = admin_client.post(f"/accounts/{ada.pk}/disable/", {"page": "1"})

    assert answer.headers["location"] == f"/accounts/{ada.pk}/"
    text = read(admin_client, ada)
    assert "An operator switched it off." in text
    assert 'id="enable"' in text
    assert 'id="disable"' not in text


def test_an_idle_account_can_be_disabled_on_every_page(admin_client: Client) -> None:
    ada = add()
    ada.apply(Trigger.IDLE, by="job", reason="idle")

    page, cards = read(admin_client, ada), admin_client.get("/accounts/").content.decode()
    admin_client.post(f"/accounts/{ada.pk}/disable/")

    assert ('id="disable"' in page, 'id="cut"' in page) == (True, False)
    assert (f'id="disable-{ada.pk}"' in cards, "/cut/" in cards) == (True, False)
    assert 'id="disable"' not in read(admin_client, ada)


def test_a_test_says_what_came_of_it(admin_client: Client, simulator: Simulator) -> None:
    ada = add(kind=Kind.API_KEY)

    answer = admin_client.post(f"/accounts/{ada.pk}/test/", follow=True)

    assert answer.redirect_chain[-1][0] == f"/accounts/{ada.pk}/"
    assert "“ada”: The credential was refused (401)." in answer.content.decode()
    assert Account.objects.get().status == "active"


def test_a_cut_is_asked_for_once_and_says_how_many_requests_it_ends(admin_client: Client) -> None:
    ada = add()
    unknown = read(admin_client, ada, "cut/")
    ramp.enter(ada.pk)
    ramp.enter(ada.pk)

    known = read(admin_client, ada, "cut/")
    ramp.reset()

    assert "knows of no such request" in unknown
    assert "At least 2 requests" in known
    assert Account.objects.get().status == "active"


@pytest.mark.parametrize("page", ["/", "/accounts/", "/accounts/{}/"])
def test_thirty_accounts_cost_as_many_queries_as_three(admin_client: Client, page: str) -> None:
    counts = []
    for number in (3, 30):
        while Account.objects.count() < number:
            note(add(f"a{Account.objects.count()}"), "5h", 0.5, timezone.now() + HOUR)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            admin_client.get(page.format(Account.objects.first().pk))  # type: ignore[union-attr]
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 22
