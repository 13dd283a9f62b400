"""What a key may be given: read from loose input, refused field by field."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts import adding, lifecycle
from accounts.models import Account
from accounts.states import Kind
from sessions_limit import keys, terms
from sessions_limit.models import ClientKey
from sessions_limit.patterns import allows
from sessions_limit.terms import BadTerms

AHEAD = datetime(2999, 1, 1, tzinfo=UTC)
COUNTS = ("requests_per_minute", "tokens_per_minute", "max_in_flight")
TOKENS = ("tokens_per_day", "tokens_per_week", "tokens_per_month")
MONEY = ("usd_per_day", "usd_per_week", "usd_per_month")
NOT_NUMBERS: tuple[Any, ...] = (
    True,
    1.0,
    "1.0",
    "1e3",
    "1_000",
    "\u0661",
    "0x1",
    "9" * 5000,
    10**400,
    float("nan"),
    "\0",
    "1\0",
    [1],
    {},
    b"1",
)

WRONG: list[tuple[str, Any]] = [
    *[(name, value) for name in (*COUNTS, *TOKENS, "max_sessions") for value in NOT_NUMBERS],
    *[(name, value) for name in COUNTS for value in (0, -1, 2**31)],
    *[(name, value) for name in TOKENS for value in (-1, 10**15 + 1)],
    *[("max_sessions", value) for value in (-2, 2**31)],
    *[
        (name, value)
        for name in MONEY
        for value in (
            *(True, -1, -0.1, "-1", 10**9 + 1, 10**400, "9" * 5000, "1e3", "\u0661", "1,5"),
            *(0.1234567, "0.1234567", "1e400", float("nan"), float("inf"), "NaN", "Infinity"),
            *(Decimal("NaN"), Decimal("sNaN"), Decimal("1e-99999"), Decimal("1e99999")),
            *(Decimal("0.1000000000000000000000000000000000001"), "1\0", [1], b"1"),
        )
    ],
    *[("name", value) for value in (None, "", " ", "\0", "\u202e", "x" * 101, 1, True, ["a"])],
    *[("owner", value) for value in ("x" * 101, 1, ["a"], False)],
    *[("enabled", value) for value in (None, 1, "true", "on")],
    *[("passthrough", value) for value in (1, "yes", ["a"], 0.0)],
    *[
        ("expires_at", value)
        for value in (
            *("2020-01-01", "tomorrow", "2999-13-01", "\u0662999-01-01", "9" * 5000, 0, 1e400),
            *("9999-12-31T23:59:59-23:00", "0001-01-01T00:00+23:00", "9998-01-01", "\0", True),
            AHEAD.date(),
        )
    ],
    *[
        ("labels", value)
        for value in (["A"], ["a b"], ["x" * 33], [1], {"a": 1}, 5, b"a", ["\0"], ["\u0661"])
    ],
    ("labels", [str(number) for number in range(21)]),
    *[
        ("model_patterns", value)
        for value in ([""], ["a b"], ["\u00e9"], ["x" * 129], ["a\0"], [None], 5, {"a": 1})
    ],
    ("model_patterns", [str(number) for number in range(51)]),
    *[
        ("networks", value)
        for value in (
            *([""], ["10.0.0.0/33"], ["10.0.0"], ["fe80::1%eth0/64"], ["\u0661.0.0.0/8"]),
            *([167772160], ["localhost"], ["10.0.0.0/8\0"], ["1" * 5000], 5, {"::/0": 1}),
        )
    ],
    ("networks", [f"10.0.0.{number}" for number in range(51)]),
    *[
        ("time_zone", value)
        for value in ("Mars/Base", "../../etc/passwd", "utc\0", "x" * 5000, 1, ["UTC"], True)
    ],
    *[("hash", "a"), ("cost_per_day", 5), ("id", 5), ("revoked_at", None)],
]


@pytest.fixture
def account(db: None) -> Account:
    return adding.add_secret(Kind.API_KEY, "console", "sk-ant-api03-console", "ada")


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        ({"name": " a\tb\u202e "}, {"name": "a b"}),
        ({"owner": " Ada\0 "}, {"owner": "Ada"}),
        ({"enabled": False}, {"enabled": False}),
        ({"expires_at": AHEAD}, {"expires_at": AHEAD}),
        ({"expires_at": "2999-01-01"}, {"expires_at": AHEAD}),
        ({"expires_at": " 2999-01-01T02:00:00+02:00 "}, {"expires_at": AHEAD}),
        ({"labels": ["b", "a", "b"]}, {"labels": ["a", "b"]}),
        ({"labels": "b, a"}, {"labels": ["a", "b"]}),
        (
            {"model_patterns": "claude-haiku-*, m[1m] m[1m]"},
            {"model_patterns": ["claude-haiku-*", "m[1m]"]},
        ),
        ({"networks": ["10.1.2.3/8"]}, {"networks": ["10.0.0.0/8"]}),
        ({"networks": "10.0.0.1 2001:DB8::1/64"}, {"networks": ["10.0.0.1/32", "2001:db8::/64"]}),
        (
            {"networks": ["10.0.0.0/255.0.0.0", "::ffff:10.0.0.0/104"]},
            {"networks": ["10.0.0.0/8"]},
        ),
        ({"networks": ["::/0", "0.0.0.0/0"]}, {"networks": ["::/0", "0.0.0.0/0"]}),
        ({"passthrough": True}, {"passthrough": True}),
        ({"max_sessions": " -1 "}, {"max_sessions": -1}),
        ({"max_sessions": 0}, {"max_sessions": 0}),
        ({"requests_per_minute": "2147483647"}, {"requests_per_minute": 2**31 - 1}),
        ({"tokens_per_month": 10**15}, {"tokens_per_month": 10**15}),
        ({"tokens_per_day": 0}, {"tokens_per_day": 0}),
        ({"usd_per_day": 0.1}, {"cost_per_day": 100_000}),
        ({"usd_per_week": " 12.345678 "}, {"cost_per_week": 12_345_678}),
        ({"usd_per_month": Decimal("1E+9")}, {"cost_per_month": 10**15}),
        ({"usd_per_month": 0}, {"cost_per_month": 0}),
        ({"time_zone": "Europe/Berlin"}, {"time_zone": "Europe/Berlin"}),
    ],
)
def test_what_is_good_becomes_what_the_columns_hold(
    given: dict[str, Any], columns: dict[str, Any]
) -> None:
    assert terms.checked(**given) == columns


@pytest.mark.parametrize("nothing", [None, ""])
def test_nothing_clears_a_field(nothing: Any) -> None:
    kept = {"name", "enabled"}

    cleared = terms.checked(**dict.fromkeys(terms.RULES.keys() - kept, nothing))

    assert cleared.pop("owner") == ""
    assert cleared.pop("passthrough") is False
    assert cleared.pop("time_zone") == "UTC"
    assert [cleared.pop(name) for name in ("labels", "model_patterns", "networks")] == [[], [], []]
    assert set(cleared.values()) == {None}


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_what_is_wrong_is_told_by_its_field(name: str, value: Any) -> None:
    with pytest.raises(BadTerms) as raised:
        terms.checked(**{name: value})

    assert list(raised.value.errors) == [name]
    assert len(raised.value.errors[name]) < 200


def test_every_wrong_field_is_told_at_once() -> None:
    with pytest.raises(BadTerms) as raised:
        terms.checked(name="fine", max_sessions=-2, usd_per_day="x", odd=1)

    assert list(raised.value.errors) == ["max_sessions", "usd_per_day", "odd"]


def test_an_account_is_given_by_its_id_or_its_name(account: Account) -> None:
    for value in (account.pk, str(account.pk), "console"):
        assert terms.checked(pinned_account=value) == {"pinned_account": account.pk}


@pytest.mark.parametrize(
    "value", [999, -1, "nobody", "\0", "x" * 5000, True, 2**63, 10**400, "9" * 19, 1.0, [1]]
)
def test_an_account_that_is_not_there_is_refused(account: Account, value: Any) -> None:
    with pytest.raises(BadTerms):
        terms.checked(pinned_account=value)


def test_a_removed_account_is_refused(account: Account) -> None:
    lifecycle.remove(account, by="ada")

    for value in (account.pk, "console"):
        with pytest.raises(BadTerms):
            terms.checked(pinned_account=value)


def test_the_terms_of_a_key_are_told_as_they_are_taken(account: Account) -> None:
    some = {"usd_per_day": Decimal("0.1"), "tokens_per_week": 5, "labels": ["a"]}
    columns = terms.checked(**some, pinned_account="console", name="ci")
    key = ClientKey(**columns, hash="x", created_by="ada")

    told = terms.of(key)

    assert told.keys() == terms.RULES.keys()
    assert {name: told[name] for name in some} == some
    assert terms.checked(**told) | columns == terms.checked(**told)


@pytest.mark.parametrize(
    ("patterns", "model", "is_allowed"),
    [
        ((), "anything", True),
        (("claude-haiku-*",), "claude-haiku-4-5", True),
        (("claude-haiku-*",), "claude-opus-4-1", False),
        (("claude-haiku-*",), "CLAUDE-HAIKU-4-5", False),
        (("a", "b"), "b", True),
        (("claude-?",), "claude-1", True),
        (("claude-?",), "claude-12", False),
        (("m[1m]",), "m[1m]", True),
        (("m[1m]",), "m1", False),
        (("[!a]",), "b", False),
        (("*",), "", True),
        (("a",), "", False),
        (("a",), "a\n", False),
        (("*",), "x" * 257, False),
        (("*a" * 60 + "*b",), "a" * 256, False),
    ],
)
def test_patterns_say_which_models_a_key_may_use(
    patterns: tuple[str, ...], model: str, is_allowed: bool
) -> None:
    assert allows(patterns, model) is is_allowed


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(deadline=None)
@given(name=st.sampled_from(sorted(terms.RULES.keys() - {"pinned_account"})), value=ANYTHING)
def test_whatever_is_given_nothing_else_is_raised(name: str, value: Any) -> None:
    with contextlib.suppress(BadTerms):
        assert len(terms.checked(**{name: value})) == 1


@pytest.mark.django_db
def test_what_was_checked_is_what_a_key_holds() -> None:
    row, _ = keys.create("ci", by="ada")
    ends = timezone.now() + timedelta(days=1)
    columns = terms.checked(
        expires_at=ends,
        tokens_per_day=10**15,
        usd_per_day=10**9,
        max_in_flight=2**31 - 1,
        max_sessions=-1,
        networks="::/0",
    )

    ClientKey.objects.filter(pk=row.pk).update(**columns)

    row.refresh_from_db()
    assert {name: getattr(row, name) for name in columns} == columns
