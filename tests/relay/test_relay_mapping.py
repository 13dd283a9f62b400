"""A model's name at a compatible endpoint, and a body in which nothing else changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.base import Endpoint
from relay.mapping import mapped, with_model

ENDPOINT = Endpoint(
    "https://upstream.example",
    model_map=(
        ("claude-opus-4-*", "old"),
        ("claude-opus-*", "big"),
        ("exact", "one"),
        ("a*c*", "ac"),
    ),
)

keys = st.sampled_from(["model", "messages", "a", "mod\\el", '"model":', "\u00e9"]) | st.text(
    max_size=5
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.just('"model": "x"'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(keys, values, max_size=5)


@pytest.mark.parametrize(
    ("model", "there"),
    [
        ("claude-opus-5", "big"),
        ("claude-opus-5[1m]", "big"),
        ("claude-opus-4-1", "old"),
        ("exact", "one"),
        ("exactly", None),
        ("abcd", "ac"),
        ("CLAUDE-OPUS-5", None),
        ("claude-haiku-5", None),
        ("", None),
    ],
)
def test_the_first_pattern_that_fits_names_the_model(model: str, there: str | None) -> None:
    assert mapped(model, ENDPOINT) == there


def test_no_character_of_a_pattern_but_the_star_is_special() -> None:
    endpoint = Endpoint("https://upstream.example", model_map=(("a.b[cd]?", "there"),))

    assert mapped("a.b[cd]?", endpoint) == "there"
    assert mapped("axbc", endpoint) is None


@settings(max_examples=80, deadline=None)
@given(
    before=bodies,
    after=bodies,
    old=st.text(max_size=8),
    new=st.text(min_size=1, max_size=8),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
)
def test_only_the_top_level_model_changes(
    before: dict[str, Any],
    after: dict[str, Any],
    old: str,
    new: str,
    indent: int | None,
    ascii_only: bool,
) -> None:
    for part in (before, after):
        part.pop("model", None)
    body = {**before, "model": old, **after}
    try:
        text = json.dumps(body, indent=indent, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return

    made = with_model(text, new)

    assert json.loads(made) == body | {"model": new}
    if made != text:
        assert json.dumps({"model": new}, ensure_ascii=False)[10:-1].encode() in made


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a"}', b'{"model":"new"}'),
        (b' {\n "model" :\t"a" , "x":1.50}', b' {\n "model" :\t"new" , "x":1.50}'),
        (b'{"x":{"model":"a"},"model":"a"}', b'{"x":{"model":"a"},"model":"new"}'),
        (b'{"x":{"model":"new"},"model":"a"}', b'{"x":{"model":"new"},"model":"new"}'),
        (b'{"model":"new","x":{"model":"a"}}', b'{"model":"new","x":{"model":"a"}}'),
        (b'{"x":"\\"model\\":\\"a\\"","model":"a"}', b'{"x":"\\"model\\":\\"a\\"","model":"new"}'),
        (b'{"model":"q\\"\\\\","y":[ ]}', b'{"model":"new","y":[ ]}'),
        # Of two the last one counts, as it did when the request was read.
        (b'{"model":"a","model":"b"}', b'{"model":"a","model":"new"}'),
        (b'{"mod\\u0065l":"a","x":1.50}', b'{"model":"new","x":1.50}'),
        (
            b'{"x":[' + b",".join([b'{"model":"a"}'] * 9) + b'],"model":"a"}',
            b'{"x":[' + b",".join([b'{"model":"a"}'] * 9) + b'],"model":"new"}',
        ),
        (b"not json", b"not json"),
        (b"[1]", b"[1]"),
    ],
)
def test_every_other_byte_stays(body: bytes, expected: bytes) -> None:
    assert with_model(body, "new") == expected
