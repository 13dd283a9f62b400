"""Sealed texts and keyed hashes."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.crypto import DecryptError, Ring, keyed_hash

ONE, TWO = bytes(32), bytes(range(32))


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(max_size=20).map(repr))
@settings(deadline=None)
def test_a_sealed_text_opens_where_it_was_sealed(text: str, place: str) -> None:
    ring = Ring([ONE])

    assert ring.open(ring.seal(text, place), place) == text


def test_the_same_text_is_never_sealed_alike() -> None:
    ring = Ring([ONE])

    assert ring.seal("text", "here") != ring.seal("text", "here")


def test_a_sealed_text_opens_nowhere_else() -> None:
    sealed = Ring([ONE]).seal("pa55word", "here")

    for ring, place in ((Ring([ONE]), "there"), (Ring([TWO]), "here")):
        with pytest.raises(DecryptError) as raised:
            ring.open(sealed, place)
        assert "pa55word" not in repr(raised.value)
        assert raised.value.__suppress_context__


def test_a_changed_bit_does_not_open() -> None:
    sealed = base64.b64decode(Ring([ONE]).seal("text", "here"))

    for at in range(len(sealed)):
        damaged = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(DecryptError):
            Ring([ONE]).open(base64.b64encode(damaged).decode(), "here")


@given(
    st.text(max_size=80) | st.binary(max_size=80).map(lambda raw: base64.b64encode(raw).decode())
)
@settings(deadline=None)
def test_nothing_whatsoever_raises_anything_else(sealed: str) -> None:
    with pytest.raises(DecryptError):
        Ring([ONE, TWO]).open(sealed, "here")


def test_the_first_key_seals_and_all_open() -> None:
    old = Ring([ONE]).seal("text", "here")
    ring = Ring([TWO, ONE])

    assert ring.open(old, "here") == "text"
    assert ring.is_stale(old)
    assert not ring.is_stale(ring.seal("text", "here"))


def test_a_keyed_hash_differs_by_purpose() -> None:
    assert keyed_hash("text", "one") == keyed_hash("text", "one")
    assert keyed_hash("text", "one") != keyed_hash("text", "two")
    assert len(keyed_hash("text", "one")) == 64
    assert "text" not in keyed_hash("text", "one")
