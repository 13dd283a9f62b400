"""What the holder of a relay key may know: the own limits and how they stand, and nothing else."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from accounts.models import Account
from lib.redis import for_jobs
from relay.errors import ClientAuth
from sessions_limit import issuing, keys, presence, terms
from sessions_limit.models import ClientKey, ClientSession
from sessions_limit.presence import SESSION
from usage import recorder

pytestmark = pytest.mark.django_db
TERMS = {
    "owner": "a note that only operators read",
    "labels": ["team"],
    "model_patterns": ["claude-haiku-*"],
    "networks": ["127.0.0.0/8", "::1"],
    "requests_per_minute": 5,
    "tokens_per_minute": 6,
    "max_in_flight": 7,
    "max_sessions": 2,
    "tokens_per_day": 100,
    "usd_per_month": 12.5,
    "time_zone": "Europe/Berlin",
}


@pytest.fixture
def strict() -> Client:
    return Client(enforce_csrf_checks=True)


@pytest.fixture
def limits(settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"session_limit": True})


def me(client: Client, **headers: str) -> Any:
    answer = client.get("/api/me", headers={n.replace("_", "-"): v for n, v in headers.items()})
    return answer, json.loads(answer.content)


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def test_a_holder_sees_the_own_limits_and_nothing_else(
    strict: Client, account: Account, limits: None
) -> None:
    ends = timezone.now() + timedelta(days=1)
    columns = terms.checked(**TERMS, pinned_account=account.pk, expires_at=ends)
    row, text = keys.create("ci", by="ada", **columns)
    keys.create("another", by="ada")

    answer, told = me(strict, **bearer(text))

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    day, month = told.pop("budgets")
    assert told == {
        "name": "ci",
        "expires_at": ends.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "models": ["claude-haiku-*"],
        "networks": ["127.0.0.0/8", "::1/128"],
        "limits": {
            "sessions": 2,
            "in_flight": 7,
            "requests_per_minute": 5,
            "tokens_per_minute": 6,
        },
        "time_zone": "Europe/Berlin",
        "sessions": 0,
        "in_flight": 0,
    }
    assert (day["period"], day["unit"], day["most"], day["left"]) == ("day", "tokens", 100, 100)
    assert (month["period"], month["unit"], month["most"]) == ("month", "usd", 12.5)
    for hidden in ("operators read", "another", "console", "team", row.hash, text):
        assert hidden.encode() not in answer.content


def test_use_of_budgets_and_sessions_is_told_of_the_own_key_only(strict: Client) -> None:
    row, text = keys.create("ci", by="ada", **terms.checked(tokens_per_day=100, usd_per_day=1))
    other = keys.create("other", by="ada")[0]
    now = timezone.now()
    recorder.write([_record(1, row, now), _record(2, other, now)])
    names = [_session(row, "one"), _session(row, "two"), _session(other, "three")]
    _session(row, "ended", ended_at=now)
    with for_jobs() as client:
        client.sadd(presence.PROCESSES, "here")
        told = {SESSION + name: "2 1" for name in names} | {SESSION + "key:0/gone": "5 5"}
        client.hset(presence._place("here"), mapping=told)

    _, told_me = me(strict, **bearer(text))

    assert (told_me["sessions"], told_me["in_flight"]) == (2, 4)
    tokens, usd = told_me["budgets"]
    assert (tokens["used"], tokens["left"]) == (130, 0)
    assert tokens["resets_at"] > now.isoformat()
    assert (usd["unit"], usd["most"]) == ("usd", 1.0)


def _session(row: ClientKey, session: str, **fields: Any) -> str:
    now = timezone.now()
    return ClientSession.objects.create(
        uid=f"{ClientSession.objects.count():016}",
        key=row,
        client=f"key:{row.pk}",
        session=session,
        started_at=now,
        last_seen_at=now,
        **fields,
    ).name


def _record(number: int, row: ClientKey, at: datetime) -> dict[str, Any]:
    return {
        "request_id": f"rly_{number}",
        "key": row.pk,
        "account": None,
        "session": "",
        "endpoint": "/v1/messages",
        "model": "claude-opus-5",
        "stream": True,
        "status": 200,
        "ended": "complete",
        "attempts": 1,
        "input_tokens": 100,
        "output_tokens": 30,
        "started_at": at.timestamp(),
        "first_byte_at": None,
        "ended_at": at.timestamp(),
    }


@pytest.mark.parametrize(
    ("config", "columns", "told"),
    [
        ({}, {}, (3, 64)),
        ({}, {"max_sessions": -1, "max_in_flight": 1}, (None, 1)),
        ({}, {"max_sessions": 0}, (0, 64)),
        ({"session_max_concurrent": -1, "client_max_in_flight": -1}, {}, (None, None)),
        ({"session_limit": False}, {"max_sessions": 2}, (None, 64)),
        ({"session_client": "ip"}, {}, (None, None)),
        ({"session_client": "ip"}, {"max_sessions": 2, "max_in_flight": 5}, (2, 5)),
    ],
)
def test_a_limit_that_is_not_its_own_is_that_of_every_client(
    strict: Client, settings: Any, config: dict[str, Any], columns: dict[str, Any], told: Any
) -> None:
    update = {"session_limit": True} | config
    settings.CONFIG = settings.CONFIG.model_copy(update=update)
    _, text = keys.create("ci", by="ada", **columns)

    limits = me(strict, **bearer(text))[1]["limits"]

    assert (limits["sessions"], limits["in_flight"]) == told


def test_the_key_is_taken_as_the_relay_takes_it(strict: Client) -> None:
    _, text = keys.create("ci", by="ada")
    _, other = keys.create("other", by="ada")

    def status(**headers: str) -> int:
        return int(me(strict, **headers)[0].status_code)

    assert status(x_api_key=text) == status(x_relay_key=text) == 200
    assert status(**bearer(text), x_api_key=text, x_relay_key=text) == 200
    # Beside x-relay-key a client's own login may stand.
    assert status(authorization="Bearer sk-ant-oat01-x", x_relay_key=text) == 200
    assert status(**bearer(text), x_api_key=other) == 400
    assert status(**bearer(text), x_api_key="z") == 400
    assert status(x_api_key=other, x_relay_key=text) == 400
    assert status(authorization=f"Basic {text}") == 401
    assert status(authorization=f"Bearer {text} {text}") == 401


def test_everybody_else_gets_the_same_401_in_the_relays_words(
    strict: Client, token: str, operator: User
) -> None:
    revoked, first = keys.create("revoked", by="ada")
    keys.revoke(revoked, by="ada")
    disabled, second = keys.create("disabled", by="ada")
    issuing.disable(disabled, by="ada")
    rotated, third = keys.create("rotated", by="ada")
    issuing.rotate(rotated, by="ada", overlap=timedelta(0))
    _, fourth = keys.create("expired", by="ada", expires_at=timezone.now())
    strict.force_login(operator)

    texts = ["", first, second, third, fourth, token, "rk_" + "x" * 43, "rk_" + "x" * 2**20]
    answers = [me(strict, **bearer(text)) for text in texts] + [me(strict)]

    assert {answer.status_code for answer, _ in answers} == {401}
    assert {told["detail"] for _, told in answers} == {ClientAuth.message}
    assert {answer.headers["content-type"] for answer, _ in answers} == {"application/problem+json"}


def test_an_old_secret_sees_until_when_it_works(strict: Client) -> None:
    row, old = keys.create("ci", by="ada")
    new = issuing.rotate(row, by="ada")

    assert me(strict, **bearer(old))[1]["expires_at"] is not None
    assert me(strict, **bearer(new))[1]["expires_at"] is None


def test_its_networks_hold_here_too(strict: Client) -> None:
    _, text = keys.create("ci", by="ada", **terms.checked(networks="10.0.0.0/8"))

    answer, told = me(strict, **bearer(text))

    assert answer.status_code == 403
    assert set(told) == {"type", "title", "status", "detail"}


@pytest.mark.parametrize(
    "text",
    ["rk_", "rk_" + "x" * 2**20, "rk_" + "x" * 42 + "\0", "rk_" + "\u0661" * 43, "' OR 1=1 --"],
)
def test_of_what_cannot_be_a_key_nobody_is_asked(
    strict: Client, text: str, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(0):
        answer = strict.get("/api/me", HTTP_X_API_KEY=text)

    assert answer.status_code == 401


def test_a_guess_costs_one_query(strict: Client, db: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        assert me(strict, **bearer("rk_" + "x" * 43))[0].status_code == 401


def test_only_reading_is_served(strict: Client) -> None:
    _, text = keys.create("ci", by="ada")

    assert strict.delete("/api/me", headers=bearer(text)).status_code == 405
    assert strict.get("/api/keys", headers=bearer(text)).status_code == 401
