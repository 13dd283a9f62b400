"""The sessions page: who lives, what they have under way, and what a revocation ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import Account
from events import conditions
from events.models import Event
from sessions_limit import alone, keys, session_listing
from sessions_limit.models import ClientKey, ClientSession, Revocation
from tests.sessions_limit_pages.conftest import Begin

HOSTILE = "<script>alert(1)</script>\u202e" + "W" * 99
pytestmark = pytest.mark.django_db


def page(client: Client, query: str = "", **headers: str) -> str:
    return client.get(f"/sessions/{query}", headers=headers).content.decode()


def shown(text: str) -> list[str]:
    """Return the sessions of the table, in its order."""
    return [part.partition('"')[0] for part in text.split('<code class="cut" title="')[1:]]


def ended(why: str = "idle") -> dict[str, Any]:
    at = timezone.now() - timedelta(minutes=20)
    return {"last_seen_at": at, "ended_at": at, "ended": why}


def text_of(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


def test_living_sessions_are_shown_with_all_that_is_known(
    admin_client: Client, key: ClientKey, begin: Begin
) -> None:
    account = Account.objects.create(name="ada", kind="api_key")
    begin(key, "conversation", "3 2", account=account, user_agent="claude-cli/2", requests=1234)
    begin(key, "over", **ended())

    whole = page(admin_client)
    region = page(admin_client, **{"hx-request": "true"})

    assert shown(whole) == shown(region) == ["conversation"]
    for part in ("laptop", "203.0.113.5", "claude-cli/2", ">ada<", "1,234", "living"):
        assert part in region
    assert "1 session lives, 3 requests under way, 2 live streams." in region
    assert "<html" in whole
    assert "<html" not in region
    assert 'hx-trigger="every 5s"' in region


def test_of_all_sessions_the_living_come_first_page_by_page(
    admin_client: Client, key: ClientKey, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_listing, "PAGE", 2)
    for number, why in enumerate(("idle", "too old", "revoked")):
        begin(key, f"over-{number}", **ended(why))
    for name in ("a", "b", "c"):
        begin(key, name, last_seen_at=timezone.now() - timedelta(hours=2))

    pages = [page(admin_client, f"?state=all&page={number}") for number in (1, 2, 3, 4)]

    assert [shown(text) for text in pages] == [
        ["c", "b"],
        ["a", "over-2"],
        ["over-1", "over-0"],
        [],
    ]
    assert ["Older" in text for text in pages] == [True, True, False, False]
    assert "every 5s" not in pages[1]
    assert all(why in pages[1] + pages[2] for why in ("idle", "too old", "revoked"))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?key={key}", ["mine"]),
        ("?address=2001:db8::1", ["theirs"]),
        ("?account={account}", ["theirs"]),
        ("?q=MIN", ["mine"]),
        ("?q=python", ["theirs"]),
        ("?state=ended", ["over"]),
        ("?state=all&key={key}", ["mine", "over"]),
        # What cannot be read filters nothing, and is said beside its field.
        ("?address=nowhere", ["theirs", "mine"]),
        ("?state=dead&key=x&page=-1&account=9999999999999999999999", ["theirs", "mine"]),
        ("?q=%00", ["theirs", "mine"]),
    ],
)
def test_the_list_is_filtered(
    admin_client: Client, key: ClientKey, begin: Begin, query: str, found: list[str]
) -> None:
    account = Account.objects.create(name="ada", kind="api_key")
    begin(key, "mine", user_agent="claude-cli")
    begin(key, "over", **ended())
    other, _ = keys.create("other", by="anna")
    begin(other, "theirs", address="2001:db8::1", account=account, user_agent="Anthropic/Python")

    assert shown(page(admin_client, query.format(key=key.pk, account=account.pk))) == found


def test_what_clients_chose_is_shown_as_text(
    admin_client: Client, key: ClientKey, begin: Begin
) -> None:
    ClientKey.objects.update(name=HOSTILE[:100])
    row = begin(key, HOSTILE, user_agent=HOSTILE, address="<b>")

    answers = [page(admin_client), page(admin_client, "?q=%3Cscript%3E&address=%3Cb%3E")]
    answers.append(admin_client.get(f"/sessions/{row.uid}/revoke/").content.decode())

    for text in answers:
        assert "<script>alert" not in text
        assert "<b>" not in text
    assert "&lt;script&gt;alert" in answers[0]


def test_an_empty_page_says_what_to_do_next(admin_client: Client, begin: Begin) -> None:
    texts = [page(admin_client, query) for query in ("", "?state=all", "?q=x")]

    assert "Show the settings for clients" in texts[0]
    assert "No session yet" in texts[1]
    assert "Show all sessions." in texts[2]


def test_the_page_says_when_limits_are_off_and_when_redis_is_away(
    admin_client: Client, key: ClientKey, begin: Begin, settings: Any
) -> None:
    row = begin(key, "conversation", "3 2")
    settings.CONFIG = settings.CONFIG.model_copy(update={"session_limit": True})
    known = page(admin_client)
    settings.CONFIG = settings.CONFIG.model_copy(update={"session_limit": False})
    settings.REDIS_URL = "unix:///nowhere/valkey"

    blind = page(admin_client)
    asked = text_of(admin_client.get(f"/sessions/{row.uid}/revoke/"))
    overview = text_of(admin_client.get("/"))

    assert "limits are off" not in known
    assert "Redis does not answer" not in known
    assert "limits are off" in blind
    assert "Redis does not answer" in blind
    assert shown(blind) == ["conversation"]
    assert "whatever streams live will be cut" in asked
    assert "Redis does not answer" in overview


def test_one_session_is_revoked_after_one_question_and_only_once(
    admin_client: Client, key: ClientKey, begin: Begin
) -> None:
    row = begin(key, "conversation", "3 2")
    path = f"/sessions/{row.uid}/revoke/"

    asked = text_of(admin_client.get(path))
    untouched = ClientSession.objects.get().ended_at
    done = text_of(admin_client.post(path, follow=True))
    again = [admin_client.get(path, follow=True), admin_client.post(path, follow=True)]

    assert "1 session ends, 2 live streams will be cut" in asked
    assert "its client gets 403 for 15 min" in asked
    assert untouched is None
    assert "The session is revoked." in done
    assert ClientSession.objects.get().ended == "revoked"
    assert Revocation.objects.get().by == "admin"
    assert all("was revoked already" in text_of(answer) for answer in again)
    assert Event.objects.filter(kind="session.revoke").count() == 1


@pytest.mark.parametrize(
    ("path", "ends"),
    [
        ("key/{key}", ["mine", "mine-too"]),
        ("address/203.0.113.5", ["mine", "theirs"]),
        # An IPv6 address stands for its /64.
        ("address/2001:db8::2", ["mine-too"]),
        ("everything", ["mine", "mine-too", "theirs"]),
    ],
)
def test_many_are_revoked_after_one_question(
    admin_client: Client, key: ClientKey, begin: Begin, path: str, ends: list[str]
) -> None:
    begin(key, "mine", "2 1")
    begin(key, "mine-too", "1 1", address="2001:db8::1")
    begin(keys.create("other", by="anna")[0], "theirs", "1 1")
    begin(key, "over", **ended())
    whole = f"/sessions/revoke/{path.format(key=key.pk)}/"
    some = "session ends" if len(ends) == 1 else "sessions end"
    streams = "stream" if len(ends) == 1 else "streams"

    asked = text_of(admin_client.get(whole))
    done = text_of(admin_client.post(whole, follow=True))
    again = text_of(admin_client.post(whole, follow=True))

    assert f"{len(ends)} {some}, {len(ends)} live {streams} will be cut" in asked
    assert "the clients get 403 for 15 min" in asked
    assert f"{len(ends)} session{' is' if len(ends) == 1 else 's are'} revoked." in done
    revoked = ClientSession.objects.filter(ended="revoked").order_by("session")
    assert list(revoked.values_list("session", flat=True)) == ends
    assert "were revoked already" in again


@pytest.mark.parametrize(
    "path",
    [
        "x/revoke/",
        "%00/revoke/",
        "revoke/key/99/",
        f"revoke/key/{2**63}/",
        "revoke/address/nowhere/",
        "revoke/address/%00/",
        "revoke/everthing/",
    ],
)
def test_what_is_not_there_is_not_revoked(
    admin_client: Client, key: ClientKey, begin: Begin, path: str
) -> None:
    begin(key, "conversation")

    assert admin_client.post(f"/sessions/{path}").status_code == 404
    assert not Revocation.objects.exists()


def test_the_overview_tells_of_sessions_and_of_a_degraded_limiter(
    admin_client: Client, key: ClientKey, begin: Begin
) -> None:
    Account.objects.create(name="ada", kind="api_key")
    begin(key, "conversation", "3 2")
    before = text_of(admin_client.get("/"))
    conditions.begin(alone.DEGRADED, alone.SUBJECT, now=timezone.now())

    after = text_of(admin_client.get("/"))

    for name, number in (("Living sessions", 1), ("Requests under way", 3), ("Live streams", 2)):
        assert f"{name}</span><b>{number}</b>" in before
    assert "not counted together" not in before
    assert "not counted together" in after
