"""The pages of alerts and events: they work without JavaScript and repeat no secret."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from events import alerts, channels, journal, rules
from events.models import Channel, Delivery, Event, Rule, State
from tests.events.conftest import Receiver, Wired

SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]{40,}")
HOSTILE = "<script>alert(1)</script>\"' onclick=x"
HTMX = {"HX-Request": "true"}


def text(answer: Any) -> str:
    return str(answer.content.decode())


def test_a_webhook_is_added_with_a_rule_and_its_secret_is_shown_once(
    admin_client: Client, receiver: Receiver, db: None
) -> None:
    form = {"name": "ops", "url": receiver.url, "preset": "on"}

    answer = admin_client.post("/alerts/channels/", form)

    (secret,) = set(SECRET.findall(text(answer)))
    assert "no-store" in answer.headers["cache-control"]
    assert Rule.objects.get().kinds == list(rules.NEEDS_SOMEBODY)
    channel = Channel.objects.get()
    assert channel.secret == secret
    for page in ("/alerts/", f"/alerts/channels/{channel.pk}/", "/events/"):
        shown = text(admin_client.get(page))
        assert secret not in shown
        assert "s3cret" not in shown
    assert not any("s3cret" in str(e.data) or secret in str(e.data) for e in Event.objects.all())


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "https://127.0.0.1/hook?token=s3cret",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "ftp://example.com/",
        "https://user:s3cret@example.com/",
        "javascript:alert(1)",
        "https://",
    ],
)
@pytest.mark.django_db
def test_an_address_that_must_not_be_reached_is_refused(admin_client: Client, url: str) -> None:
    answer = admin_client.post("/alerts/channels/", {"name": "ops", "url": url, "preset": "on"})

    assert 'class="errorlist"' in text(answer)
    assert "s3cret" not in text(answer)
    assert not Channel.objects.exists()
    assert not Rule.objects.exists()


def test_a_name_that_is_taken_makes_nothing(
    admin_client: Client, wired: Wired, receiver: Receiver
) -> None:
    form = {"name": "ops", "url": receiver.url, "preset": "on"}

    answer = admin_client.post("/alerts/channels/", form)

    assert "Another one has this name." in text(answer)
    assert (Channel.objects.count(), Rule.objects.count()) == (1, 1)


def test_the_test_button_sends_a_signed_alert_and_tells_what_came_back(
    admin_client: Client, wired: Wired, receiver: Receiver
) -> None:
    receiver.answers = [200, 503]
    address = f"/alerts/channels/{wired.channel.pk}/test/"

    good = text(admin_client.post(address, follow=True))
    bad = text(admin_client.post(address, follow=True))

    assert "“ops” took the test alert (200)." in good
    assert "“ops” did not take the test alert: answered 503." in bad
    assert [body["type"] for body in receiver.verified(wired.secret)] == ["test", "test"]
    assert {row.state for row in Delivery.objects.all()} == {State.DELIVERED, State.FAILED}
    assert alerts.deliver(timezone.now() + timedelta(days=1)) == 0
    assert Event.objects.filter(kind="channel.tested", by="admin").count() == 2
    assert not Event.objects.filter(kind="alert.failed").exists()


def test_a_new_secret_signs_what_is_sent_from_then_on(
    admin_client: Client, wired: Wired, receiver: Receiver
) -> None:
    address = f"/alerts/channels/{wired.channel.pk}/secret/"
    assert not SECRET.search(text(admin_client.get(address)))

    (secret,) = set(SECRET.findall(text(admin_client.post(address))))
    channels.test(Channel.objects.get(), by="ada")

    assert secret != wired.secret
    assert receiver.verified(secret)


def test_a_channel_is_changed_and_keeps_its_address_unless_given_a_new_one(
    admin_client: Client, wired: Wired, receiver: Receiver
) -> None:
    page = f"/alerts/channels/{wired.channel.pk}/"

    admin_client.post(page, {"name": "night shift", "url": ""})
    kept = Channel.objects.get()
    admin_client.post(page, {"name": "night shift", "url": f"{receiver.url}2"})
    moved = Channel.objects.get()

    assert (kept.name, kept.url) == ("night shift", receiver.url)
    assert moved.url == f"{receiver.url}2"
    event = Event.objects.filter(kind="channel.updated").first()
    assert event is not None
    assert event.data["new"] == {"name": "night shift", "url": "changed"}


def test_a_channel_is_disabled_enabled_and_removed_with_its_rules(
    admin_client: Client, wired: Wired
) -> None:
    page = f"/alerts/channels/{wired.channel.pk}/"
    admin_client.post(f"{page}disable/")
    assert not Channel.objects.get().enabled
    admin_client.post(f"{page}enable/")
    assert Channel.objects.get().enabled

    admin_client.post(f"{page}remove/")

    channel = Channel.objects.get()
    assert (channel.url, channel.secret, channel.enabled) == (None, None, False)
    assert not Rule.objects.exists()
    assert admin_client.get(page).status_code == 404
    kinds = Event.objects.order_by("id").values_list("kind", flat=True)
    assert list(kinds) == ["channel.disabled", "channel.enabled", "channel.removed"]


def test_a_rule_is_made_changed_switched_and_removed(admin_client: Client, wired: Wired) -> None:
    form = {"name": "r", "channel": str(wired.channel.pk), "kinds": "pool.*\naccount.limit"}
    form |= {"subjects": "account:7", "throttle_seconds": "60"}
    admin_client.post("/alerts/rules/create/", form)
    rule = Rule.objects.get(name="r")
    assert (rule.kinds, rule.subjects) == (["pool.*", "account.limit"], ["account:7"])
    page = f"/alerts/rules/{rule.pk}/"

    assert "pool.*" in text(admin_client.get(page))
    admin_client.post(page, form | {"throttle_seconds": "90"})
    admin_client.post(f"{page}disable/")

    rule.refresh_from_db()
    assert (rule.throttle_seconds, rule.enabled) == (90, False)
    event = Event.objects.filter(kind="rule.updated").last()
    assert event is not None
    assert (event.data["old"], event.data["new"]) == (
        {"throttle_seconds": 60},
        {"throttle_seconds": 90},
    )
    admin_client.post(f"{page}remove/")
    assert not Rule.objects.filter(name="r").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kinds": ""},
        {"kinds": "<script>"},
        {"kinds": "[a-z]*"},
        {"kinds": "a\x00b"},
        {"subjects": "account:7;"},
        {"throttle_seconds": "-1"},
        {"throttle_seconds": "99999999999999999999"},
        {"name": "all of accounts"},
        {"name": "\u202e"},
        {"channel": "nonsense"},
        {"kinds": " ".join(f"k{n}" for n in range(60))},
    ],
)
def test_a_rule_that_cannot_be_is_refused(
    admin_client: Client, wired: Wired, wrong: dict[str, str]
) -> None:
    form = {"name": "r", "channel": str(wired.channel.pk), "kinds": "pool.*"}
    form |= {"subjects": "", "throttle_seconds": "60"}

    answer = admin_client.post("/alerts/rules/create/", form | wrong)

    assert answer.status_code == 200
    assert 'class="errorlist' in text(answer)
    assert Rule.objects.count() == 1


def test_the_log_says_how_deliveries_stand(
    admin_client: Client, wired: Wired, receiver: Receiver
) -> None:
    receiver.answers = [500]
    journal.record("account.limit", "account:7", by="relay", reason="billing", name=HOSTILE)
    alerts.spread()
    alerts.deliver()

    page, region = text(admin_client.get("/alerts/")), admin_client.get("/alerts/", headers=HTMX)

    assert text(region).lstrip().startswith('<div id="deliveries"')
    for shown in (page, text(region)):
        assert "pending" in shown
        assert "answered 500" in shown
        assert "<script>alert" not in shown
        assert "&lt;script&gt;alert" in shown


def test_the_journal_is_filtered_and_paged(admin_client: Client, db: None) -> None:
    for number in range(205):
        journal.record("account.limit", f"account:{number % 2}", by="relay", number=number)
    journal.record("key.create", "key:1", by="ada", name=HOSTILE)

    first = text(admin_client.get("/events/?kind=account.*&subject=account:1"))
    older = re.search(r'href="(\?[^"]*before=\d+)" rel="next"', first)
    assert older is not None
    second = text(admin_client.get("/events/" + older[1].replace("&amp;", "&")))

    assert first.count("number: ") == 100
    assert second.count("number: ") == 2
    assert "hx-get" in first
    assert "hx-get" not in second
    assert 'rel="next"' not in second
    by_ada = text(admin_client.get("/events/?by=ada", headers=HTMX))
    assert "<script>alert" not in by_ada
    assert "was created by ada." in by_ada


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("since=2000-01-01T00:00", True),
        ("since=2999-01-01T00:00", False),
        ("since=nonsense", True),
        ("before=-1", True),
        ("before=99999999999999999999", True),
        ("kind=%00", True),
        ("subject=nobody", False),
        ("kind=*", True),
    ],
)
def test_a_filter_that_cannot_be_read_filters_nothing(
    admin_client: Client, db: None, query: str, found: bool
) -> None:
    journal.record("usage.lost", "stream:1", count=3)

    answer = admin_client.get(f"/events/?{query}")

    assert answer.status_code == 200
    assert ("3 records were lost." in text(answer)) is found


@pytest.mark.parametrize("path", ["/alerts/", "/events/", "/alerts/rules/create/"])
@pytest.mark.django_db
def test_only_operators_see_these_pages(client: Client, path: str) -> None:
    assert client.get(path).headers["location"].startswith("/login/")


def test_the_command_lists_and_tests(
    wired: Wired, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("alert", "test", "ops")
    assert "ops took the test alert (200)." in capsys.readouterr().out

    call_command("alert", "list", "--json")
    listed = json.loads(capsys.readouterr().out)
    call_command("alert", "list")

    assert [row["name"] for row in listed["channels"]] == ["ops"]
    assert listed["rules"][0]["kinds"] == "account.*"
    assert listed["deliveries"][0]["state"] == "delivered"
    assert "s3cret" not in capsys.readouterr().out + str(listed)
    receiver.answers = [500]
    with pytest.raises(CommandError, match="answered 500"):
        call_command("alert", "test", str(wired.channel.pk))
    with pytest.raises(CommandError, match="no channel"):
        call_command("alert", "test", "nobody")
