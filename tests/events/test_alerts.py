"""Alerts: signed, at least once, by one worker at a time, and not more often than asked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from standardwebhooks import WebhookVerificationError

from events import alerts, attempts, channels, journal, rulebook
from events.models import Channel, Delivery, Event, Rule, State
from events.notifiers import webhook
from tests.events.conftest import Receiver, Wired

LIMITED = {"reason": "limit_reached (5h)", "name": "Ada"}


def happen(kind: str = "account.limit", subject: str = "account:7", **data: Any) -> Event:
    return journal.record(kind, subject, by="relay", **(LIMITED | data))


# A day of tries, and few of them.
LONG = (7200.0, 14400.0)


def deliver_until_over(now: Any, hours: float = 30) -> Any:
    """Let the job run whenever something is due; return the time of the last run."""
    end = now + timedelta(hours=hours)
    while row := Delivery.objects.filter(state=State.PENDING).order_by("next_at").first():
        now = max(now, row.next_at)
        if now > end:
            break
        alerts.deliver(now)
    return now


def test_an_event_that_a_rule_asks_for_arrives_signed(wired: Wired, receiver: Receiver) -> None:
    event = happen(limited_until=(timezone.now()).isoformat())
    happen("key.create", "key:1")

    assert alerts.spread() == 1
    assert alerts.deliver() == 1

    (body,) = receiver.verified(wired.secret)
    assert body["type"] == "account.limit"
    assert body["timestamp"] == event.at.isoformat()
    assert body["data"]["subject"] == "account:7"
    assert body["data"]["by"] == "relay"
    assert body["data"]["reason"] == "limit_reached (5h)"
    assert body["data"]["text"].startswith("Account Ada is rate limited until ")
    assert body["data"]["suppressed"] == 0
    row = Delivery.objects.get()
    assert (row.state, row.attempts, row.last_status) == ("delivered", 1, 200)
    assert receiver.ids == [str(row.pk)]


def test_another_secret_does_not_verify(wired: Wired, receiver: Receiver) -> None:
    happen()
    alerts.spread()
    alerts.deliver()
    other = channels.renew_secret(wired.channel, by="ada")

    with pytest.raises(WebhookVerificationError):
        receiver.verified(other)


def test_it_is_sent_until_it_arrives_and_always_has_the_same_id_and_body(
    wired: Wired, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "TOTAL_SECONDS", 0.3)
    receiver.answers = [500, "hang", 404, 302]
    happen()
    alerts.spread()

    deliver_until_over(timezone.now())

    assert len(receiver.verified(wired.secret)) == 5
    assert len(set(receiver.ids)) == 1
    assert len({body for _, body in receiver.seen}) == 1
    row = Delivery.objects.get()
    assert (row.state, row.attempts, row.last_error) == ("delivered", 5, "")


def test_a_try_waits_its_turn(wired: Wired, receiver: Receiver) -> None:
    receiver.answers = [503]
    now = timezone.now()
    happen()
    alerts.spread(now)
    alerts.deliver(now)

    row = Delivery.objects.get()
    assert now + timedelta(seconds=1) <= row.next_at <= now + timedelta(seconds=30)
    assert alerts.deliver(row.next_at - timedelta(microseconds=1)) == 0
    assert len(receiver.seen) == 1
    assert (row.last_status, row.last_error) == (503, "answered 503")


def test_retry_after_is_honoured(wired: Wired, receiver: Receiver) -> None:
    receiver.answers, receiver.headers = [429], {"retry-after": "7200"}
    now = timezone.now()
    happen()
    alerts.spread(now)
    alerts.deliver(now)

    assert Delivery.objects.get().next_at == now + timedelta(hours=2)


def test_no_receiver_can_put_a_try_off_for_ever(wired: Wired, receiver: Receiver) -> None:
    receiver.answers, receiver.headers = [429, 429], {"retry-after": "99999999"}
    now = timezone.now()
    happen()
    alerts.spread(now)

    assert deliver_until_over(now) == now + timedelta(hours=24)
    assert Delivery.objects.get().state == State.FAILED


def test_a_connection_that_breaks_is_tried_again_at_once(wired: Wired, receiver: Receiver) -> None:
    receiver.answers = ["break"]
    happen()
    alerts.spread()

    assert alerts.deliver() == 1
    assert Delivery.objects.get().attempts == 1


def test_an_answer_without_an_end_is_not_read_to_it(wired: Wired, receiver: Receiver) -> None:
    receiver.answers = ["flood"]
    happen()
    alerts.spread()

    assert alerts.deliver() == 1


def test_an_answer_that_stalls_after_its_head_counts(
    wired: Wired, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "READ_SECONDS", 0.1)
    receiver.answers = ["stall"]
    happen()
    alerts.spread()

    assert alerts.deliver() == 1
    assert Delivery.objects.get().last_status == 202


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        ("9" * 400, 999_999_999),
        ("Fri, 20 Nov 2026 12:01:00 GMT", 60),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0),
        ("Fri, 20 Nov 2026 12:01:00", 60),
        ("", 0),
        ("-5", 0),
        ("soon", 0),
        ("Fri, 99 Nov 9999 99:99:99 GMT", 0),
        ("Fri, 20 Nov 99999999999999999999 12:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 -2300", 999_999_999),
        ("\u0663", 0),
    ],
)
def test_a_wait_is_read_in_seconds_or_as_a_date(header: str, seconds: float) -> None:
    assert webhook.seconds(header, datetime(2026, 11, 20, 12, tzinfo=UTC)) == seconds


@pytest.mark.parametrize("year", ["9999", "99999999999999999999"])
def test_no_answer_of_one_receiver_keeps_what_came_of_the_others_from_being_written(
    wired: Wired, receiver: Receiver, year: str
) -> None:
    receiver.answers = [429]
    receiver.headers = {"retry-after": f"Fri, 31 Dec {year} 23:59:59 -2300"}
    happen()
    happen(subject="account:8")
    alerts.spread()

    assert alerts.deliver() == 1

    assert sorted(Delivery.objects.values_list("state", "claimed_until")) == [
        ("delivered", None),
        ("pending", None),
    ]


def test_after_a_day_it_is_given_up_and_that_is_an_event(
    wired: Wired, receiver: Receiver, settings: Any
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"backoff_server_error": LONG})
    receiver.answers = [500] * 200
    happen()
    alerts.spread()

    ended = deliver_until_over(timezone.now())

    row = Delivery.objects.get()
    assert (row.state, row.attempts) == ("failed", len(receiver.seen))
    assert ended - row.created_at == pytest.approx(timedelta(days=1), abs=timedelta(minutes=1))
    event = Event.objects.get(kind="alert.failed")
    assert event.subject == wired.channel.subject
    assert event.data["error"] == "answered 500"
    assert "s3cret" not in str(event.data)


def test_a_channel_is_never_told_of_its_own_failure(
    wired: Wired, receiver: Receiver, settings: Any
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"backoff_server_error": LONG})
    second, _ = channels.create("second", receiver.url, by="ada")
    rulebook.update(wired.rule, by="ada", kinds=["*"])
    rulebook.create("failures", second, ["alert.*"], by="ada")
    Event.objects.all().delete()
    receiver.answers = [500] * 400
    happen()
    now = timezone.now()
    for _ in range(6):
        alerts.spread(now)
        now = deliver_until_over(now) + timedelta(hours=1)

    assert Delivery.objects.filter(channel=wired.channel).count() == 1
    (echo,) = Delivery.objects.filter(channel=second)
    assert (echo.kind, echo.state) == ("alert.failed", "failed")
    assert Event.objects.filter(kind="alert.failed").count() == 1


def test_a_receiver_that_is_gone_disables_its_channel(wired: Wired, receiver: Receiver) -> None:
    receiver.answers = [410]
    happen()
    alerts.spread()
    alerts.deliver()
    happen(subject="account:8")
    alerts.spread()

    channel = Channel.objects.get()
    assert channel.disabled_why == "it answered 410 (gone)"
    assert Event.objects.filter(kind="channel.disabled", subject=channel.subject).exists()
    assert Delivery.objects.get().state == State.FAILED
    assert alerts.deliver() == 0


def test_only_one_alert_per_subject_and_kind_and_the_next_says_how_many_were_held_back(
    wired: Wired, receiver: Receiver
) -> None:
    now = timezone.now()
    for subject in ("account:7", "account:7", "account:8", "account:7"):
        happen(subject=subject)
    happen("account.recover")
    assert alerts.spread(now) == 3
    happen()
    assert alerts.spread(now + timedelta(seconds=299)) == 0
    happen()
    assert alerts.spread(now + timedelta(seconds=300)) == 1
    happen()
    assert alerts.spread(now + timedelta(seconds=600)) == 1
    alerts.deliver(now + timedelta(seconds=600))

    told = [body["data"] for body in receiver.verified(wired.secret)]
    counts = sorted((data["subject"], data["suppressed"]) for data in told)
    assert counts == [
        ("account:7", 0),
        ("account:7", 0),
        ("account:7", 0),
        ("account:7", 3),
        ("account:8", 0),
    ]
    (text,) = [data["text"] for data in told if data["suppressed"]]
    assert text.endswith("(3 more like this were held back.)")


def test_two_rules_of_one_channel_tell_it_once(wired: Wired) -> None:
    rulebook.create("again", wired.channel, ["*"], by="ada")
    Event.objects.all().delete()
    happen()

    assert alerts.spread() == 1
    assert alerts.spread() == 0


def test_nobody_is_told_of_what_happened_before_there_was_a_rule(wired: Wired) -> None:
    Rule.objects.all().delete()
    happen()
    assert alerts.spread() == 0

    rulebook.create("later", wired.channel, ["account.*"], by="ada")

    assert alerts.spread() == 0


def test_rules_and_channels_that_are_switched_off_send_nothing(wired: Wired) -> None:
    rulebook.update(wired.rule, by="ada", enabled=False)
    happen()
    assert alerts.spread() == 0

    rulebook.update(wired.rule, by="ada", enabled=True)
    happen(subject="account:8")
    assert alerts.spread() == 1
    channels.disable(wired.channel, by="ada")
    happen(subject="account:9")

    assert alerts.spread() == 0
    assert Delivery.objects.get().state == State.DROPPED
    assert alerts.deliver() == 0


@pytest.mark.django_db(transaction=True)
def test_jobs_that_run_at_once_make_and_send_each_alert_once(
    wired: Wired, receiver: Receiver
) -> None:
    for number in range(8):
        happen(subject=f"account:{number}")
        happen(subject=f"account:{number}")
    now, start = timezone.now(), threading.Barrier(3)

    def job() -> None:
        try:
            start.wait()
            alerts.spread(now)
            alerts.deliver(now)
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as jobs:
        for done in [jobs.submit(job) for _ in range(3)]:
            done.result()
    alerts.deliver(now)

    assert len(receiver.ids) == len(set(receiver.ids)) == 8
    assert (
        sorted(Delivery.objects.values_list("held", "attempts", "state"))
        == [(1, 1, "delivered")] * 8
    )


def test_what_a_dead_worker_had_claimed_is_sent_by_the_next(
    wired: Wired, receiver: Receiver
) -> None:
    happen()
    now = timezone.now()
    alerts.spread(now)
    row = Delivery.objects.select_related("channel").get()
    assert attempts.claim(row, now)
    assert alerts.deliver(now + timedelta(seconds=59)) == 0

    assert alerts.deliver(now + timedelta(seconds=60)) == 1

    # The one that was taken for dead wakes up: what it has to say is not believed.
    assert not attempts.settle(row, attempts.SEALED, now)
    assert Delivery.objects.get().state == State.DELIVERED


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite commits one after another")
def test_an_event_that_is_committed_late_is_not_lost(wired: Wired) -> None:
    written, later = threading.Event(), threading.Event()

    def slow() -> None:
        with transaction.atomic():
            happen(subject="account:1")
            written.set()
            later.wait(5)
        connection.close()

    thread = threading.Thread(target=slow)
    thread.start()
    written.wait(5)
    happen(subject="account:2")
    assert alerts.spread() == 1
    later.set()
    thread.join()

    assert alerts.spread() == 1


def test_an_address_that_may_not_be_reached_any_more_is_not(
    wired: Wired, receiver: Receiver, settings: Any
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"allow_loopback_upstreams": False})
    happen()
    alerts.spread()

    assert alerts.deliver() == 0
    row = Delivery.objects.get()
    assert row.last_error.startswith("The address leads to this machine")
    assert receiver.seen == []
