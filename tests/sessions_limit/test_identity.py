"""Which conversation a request belongs to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_limit.identity import session_of

ID = "0c5a6c1e-5f0e-4d6e-9a53-2f8f2b8d6a11"
OTHER = "11111111-2222-3333-4444-555555555555"
DEVICE = "a" * 64


def new(session: object) -> str:
    return json.dumps({"device_id": DEVICE, "account_uuid": "", "session_id": session})


@pytest.mark.parametrize(
    "user_id",
    [
        f"user_{DEVICE}_account_{OTHER}_session_{ID}",
        f"user_{DEVICE}_account__session_{ID}",
        f"user_{'A' * 64}_account__session_{ID}",
        new(ID),
        f' {{"session_id": "{ID}", "unknown": [1, 2]}} ',
    ],
)
def test_both_forms_of_the_user_id_name_the_session(user_id: str) -> None:
    assert session_of(None, user_id) == ID


def test_the_header_beats_the_body() -> None:
    assert session_of(OTHER, new(ID)) == OTHER


def test_a_header_of_another_shape_is_none_whatever_the_body_says() -> None:
    assert session_of("a b", new(ID)) is None


@pytest.mark.parametrize(
    "header", ["", "a b", "a\n", "a\0", "é", "a/b", "a{b}", "a" * 129, "\u0663", " a"]
)
def test_a_header_of_another_shape_names_no_session(header: str) -> None:
    assert session_of(header, None) is None


@pytest.mark.parametrize("header", ["a", "A-Z_0.9:x", "a" * 128])
def test_a_short_plain_word_is_a_session(header: str) -> None:
    assert session_of(header, None) == header


@pytest.mark.parametrize(
    "user_id",
    [
        None,
        "",
        "user-123",
        5,
        True,
        [ID],
        {"session_id": ID},
        new(None),
        new(5),
        new([ID]),
        new({"a": ID}),
        new(""),
        new("a b"),
        new("a" * 129),
        new("a\n"),
        "{}",
        "[]",
        "null",
        "[" * 1000,
        "{" * 1000,
        "\ud800",
        '{"session_id":"\ud800"}',
        '{"session_id":"\\ud800"}',
        f"user_{'a' * 63}_account__session_{ID}",
        f"user_{DEVICE}_account__session_{ID}\n",
        f"user_{DEVICE}_account__session_",
        f"user_{DEVICE}_account__session_{'a' * 129}",
        f"user_{DEVICE}_account_" + "_session_" * 100 + "!",
        new(ID) + " " * 1024,
    ],
)
def test_a_hostile_user_id_names_no_session(user_id: object) -> None:
    assert session_of(None, user_id) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=5
)


@settings(deadline=None)
@given(st.none() | st.text(), JSON | st.text().map(new) | st.text(st.characters()))
def test_nothing_whatsoever_raises(header: str | None, user_id: object) -> None:
    session = session_of(header, user_id)

    assert session is None or 0 < len(session) <= 128
