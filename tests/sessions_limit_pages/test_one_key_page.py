"""The pages of one key: how it stands, its terms, its rotation, its end."""

from __future__ import annotations

import re
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts import adding
from accounts.states import Kind
from events.models import Event
from sessions_limit import issuing, keytext
from sessions_limit.models import ClientKey
from tests.sessions_limit_pages.conftest import Begin

KEY = re.compile(r"rk_[\w-]{43}")
pytestmark = pytest.mark.django_db


def text_of(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


class Shown(HTMLParser):
    """The form of terms as a browser has it; what is sent has CRLF at the ends of its lines."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._select = self._lines = ""
        self.feed(page[page.index("<main") :].replace("\n", "\r\n"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        name, value = told.get("name") or "", told.get("value") or ""
        is_off = told.get("type") == "checkbox" and "checked" not in told
        match tag:
            case "textarea":
                self._lines, self.fields[name] = name, ""
            case "select":
                self._select, self.fields[name] = name, ""
            case "option" if "selected" in told:
                self.fields[self._select] = value
            case "input" if name and not is_off:
                self.fields[name] = value

    def handle_endtag(self, tag: str) -> None:
        self._lines = "" if tag == "textarea" else self._lines

    def handle_data(self, data: str) -> None:
        if self._lines:
            self.fields[self._lines] = (self.fields[self._lines] + data).lstrip("\r\n")


def form_of(client: Client, page: str) -> dict[str, str]:
    return Shown(client.get(page).content.decode()).fields


def fields(**changes: Any) -> dict[str, Any]:
    return {"name": "laptop", "time_zone": "UTC"} | changes


def test_a_keys_page_tells_how_it_stands(
    admin_client: Client, key: ClientKey, begin: Begin, settings: Any
) -> None:
    account = adding.add_secret(Kind.API_KEY, "console", "sk-ant-api03-one", "anna")
    issuing.update(
        key,
        by="berta",
        owner="Ada",
        tokens_per_week=5000,
        cost_per_day=2_000_000,
        time_zone="Europe/Berlin",
        requests_per_minute=60,
        max_in_flight=7,
        max_sessions=2,
        model_patterns=["claude-haiku-*"],
        networks=["192.0.2.0/24"],
        pinned_account=account.pk,
    )
    ClientKey.objects.update(last_addresses=["192.0.2.7"])
    begin(key, "conversation", "3 2")
    settings.CONFIG = settings.CONFIG.model_copy(update={"session_limit": True})

    whole = text_of(admin_client.get(f"/keys/{key.pk}/"))
    region = text_of(admin_client.get(f"/keys/{key.pk}/", headers={"hx-request": "true"}))

    for part in (
        "USD a day</span><span>$0.00 of $2.00",
        "Tokens a week</span><span>0 of 5,000",
        "when this week ends in Europe/Berlin",
        "<dt>Sessions</dt><dd>1 of 2</dd>",
        "<dt>Requests under way</dt><dd>0 of 7</dd>",
        "<dt>Live streams</dt><dd>2</dd>",
        "60 at most",
        "conversation",
        "192.0.2.7",
        "were changed by berta",
    ):
        assert part in whole
        assert part in region
    assert all(part in whole for part in ("claude-haiku-*", "192.0.2.0/24", ">console<", "Ada"))
    assert "<html" not in region


def test_the_form_of_terms_shows_what_holds_and_saves_what_is_changed(
    admin_client: Client, key: ClientKey
) -> None:
    past = timezone.now() - timedelta(days=3)
    ClientKey.objects.update(
        expires_at=past,
        labels=["team-a", "team-b"],
        model_patterns=["claude-haiku-*", "claude-sonnet-*"],
        cost_per_day=2_500_000,
    )
    page = f"/keys/{key.pk}/terms/"
    shown = form_of(admin_client, page)
    wanted = {"max_sessions": "-1", "passthrough": "on", "usd_per_day": ""}

    # What is not changed is not looked at: that end has passed.
    kept = admin_client.post(page, shown, follow=True)
    before = Event.objects.count()
    changed = admin_client.post(page, shown | wanted)

    assert (shown["labels"], shown["usd_per_day"]) == ("team-a team-b", "2.5")
    assert shown["expires_at"] == f"{past:%Y-%m-%dT%H:%M}"
    assert shown["model_patterns"] == "claude-haiku-*\r\nclaude-sonnet-*"
    assert "Nothing was changed for “laptop”." in kept.content.decode()
    assert changed.headers["location"] == f"/keys/{key.pk}/"
    key.refresh_from_db()
    assert (key.max_sessions, key.passthrough, key.cost_per_day) == (-1, True, None)
    assert (key.expires_at, key.labels) == (past, ["team-a", "team-b"])
    assert Event.objects.count() == before + 1


def test_what_another_tab_changed_meanwhile_stays(admin_client: Client, key: ClientKey) -> None:
    page = f"/keys/{key.pk}/terms/"
    mine = form_of(admin_client, page) | {"owner": "Ada", "tokens_per_day": "1e3"}
    issuing.update(key, by="berta", max_sessions=1, networks=["192.0.2.0/24"])

    refused = admin_client.post(page, mine).content.decode()
    admin_client.post(page, Shown(refused).fields | {"tokens_per_day": "1000"})

    key.refresh_from_db()
    assert (key.owner, key.tokens_per_day) == ("Ada", 1000)
    assert (key.max_sessions, key.networks) == (1, ["192.0.2.0/24"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "\u202e"}, "that can be read"),
        ({"expires_at": "2020-01-01T00:00"}, "has passed"),
        ({"labels": "Größe"}, "is not a label"),
        ({"model_patterns": "é"}, "is no pattern"),
        ({"networks": "10.0.0.0/33"}, "is no network"),
        ({"pinned_account": "99"}, "no such account"),
        ({"max_sessions": "-2"}, "from -1 to"),
        ({"requests_per_minute": "1e3"}, "whole number"),
        ({"tokens_per_day": "9" * 19}, "whole number"),
        ({"usd_per_week": "1,5"}, "amount in USD"),
        ({"time_zone": "Mars"}, "time zone"),
        ({"owner": "x" * 101}, "at most 100"),
    ],
)
def test_what_cannot_be_is_said_at_its_field_and_nothing_is_changed(
    admin_client: Client, key: ClientKey, wrong: dict[str, str], said: str
) -> None:
    page = f"/keys/{key.pk}/terms/"

    text = admin_client.post(page, fields(tokens_per_month="7") | wrong).content.decode()

    assert said in text.partition('<ul class="errorlist"')[2]
    assert f'id="id_{next(iter(wrong))}_error"' in text
    assert 'value="7"' in text
    assert ClientKey.objects.get().tokens_per_month is None


def test_a_rotated_key_is_shown_once_and_a_form_sent_twice_rotates_once(
    admin_client: Client, key: ClientKey
) -> None:
    page = f"/keys/{key.pk}/rotate/"
    asked = admin_client.get(page).content.decode()
    given = {"overlap": "1", "hint": key.hint}

    answer = admin_client.post(page, given)
    (new,) = set(KEY.findall(answer.content.decode()))
    again = admin_client.post(page, given, follow=True)

    assert f'name="hint" value="{key.hint}"' in asked
    assert "no-store" in answer.headers["cache-control"]
    assert "The old one works until" in answer.content.decode()
    assert not KEY.findall(again.content.decode())
    assert "was rotated already" in again.content.decode()
    key.refresh_from_db()
    assert key.hash == keytext.hash_of(new)
    assert key.previous_until is not None
    assert abs(key.previous_until - timezone.now() - timedelta(hours=1)) < timedelta(minutes=1)
    assert "the key before it works until" in text_of(admin_client.get(f"/keys/{key.pk}/"))
    assert Event.objects.filter(kind="key.rotate").count() == 1


def test_a_rotation_without_an_overlap_says_so(admin_client: Client, key: ClientKey) -> None:
    page = f"/keys/{key.pk}/rotate/"

    wrong = admin_client.post(page, {"overlap": "9999", "hint": key.hint}).content.decode()
    answer = admin_client.post(page, {"overlap": "0", "hint": key.hint}).content.decode()

    assert "errorlist" in wrong
    assert "The old one is refused from now on." in answer
    assert ClientKey.objects.get().previous_until is None


def test_a_key_is_disabled_and_enabled_and_a_second_tab_is_told(
    admin_client: Client, key: ClientKey
) -> None:
    def press(verb: str) -> str:
        return text_of(admin_client.post(f"/keys/{key.pk}/{verb}/", follow=True))

    said = [press("disable"), press("disable"), press("enable"), press("enable")]

    ends = ("disabled.", "disabled already.", "enabled.", "enabled already.")
    assert all(f"is {end}" in text for text, end in zip(said, ends, strict=True))
    assert ">Enable</button>" in said[0]
    assert ">Disable</button>" in said[2]


def test_revoking_asks_once_and_is_in_the_events(
    admin_client: Client, key: ClientKey, begin: Begin
) -> None:
    begin(key, "conversation", "2 1")

    asked = text_of(admin_client.get(f"/keys/{key.pk}/revoke/"))
    untouched = ClientKey.objects.get().revoked_at
    done = admin_client.post(f"/keys/{key.pk}/revoke/", follow=True)
    again = admin_client.post(f"/keys/{key.pk}/revoke/", follow=True)

    assert "cannot be undone" in asked
    assert "1 session with 1 live stream ends" in asked
    assert untouched is None
    assert "is revoked" in done.content.decode()
    assert "was revoked before" in again.content.decode()
    assert ClientKey.objects.get().revoked_at is not None
    assert Event.objects.get(kind="key.revoke").by == "admin"


def test_a_revoked_key_is_only_looked_at(admin_client: Client, key: ClientKey) -> None:
    issuing.rotate(key, by="anna")
    issuing.revoke(key, by="anna")

    shown = text_of(admin_client.get(f"/keys/{key.pk}/"))
    refused = [
        text_of(admin_client.post(f"/keys/{key.pk}/{verb}/", fields(), follow=True))
        for verb in ("terms", "rotate", "enable", "disable")
    ]

    assert "Rotate</a>" not in shown
    assert "the key before it works" not in shown
    assert "YOUR_KEY" not in shown
    assert all("is revoked; make a new one" in text for text in refused)


@pytest.mark.parametrize("page", ["", "terms/", "rotate/", "revoke/", "enable/"])
def test_a_key_that_is_not_there_is_a_404(admin_client: Client, page: str) -> None:
    assert admin_client.get(f"/keys/99/{page}").status_code == 404
