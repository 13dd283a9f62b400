"""A request must be plain before anything of it is believed."""

from __future__ import annotations

import pytest

from relay import gate
from relay.errors import BadRequest, HeadersTooLarge

HOST = (b"host", b"localhost:8000")


@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/models/claude-opus-5", "/v1/files/f_1/content"]
)
def test_a_plain_path_of_the_api_is_ours(path: str) -> None:
    assert gate.is_relay_path(path)


@pytest.mark.parametrize(
    "path", ["/", "/accounts/", "/v1", "/static/a%20b.css", "/admin/x/?", "/v10/messages", "/V2/x"]
)
def test_other_paths_are_not(path: str) -> None:
    assert not gate.is_relay_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "//v1/messages",
        "/v1//messages",
        "/v1/../v1/messages",
        "/x/../v1/messages",
        "/./v1/messages",
        "/v1/./messages",
        "/v1/messages/..",
        "/%76%31/messages",
        "/v1%2fmessages",
        "/v1/messages%00",
        "/v1/mess%61ges",
        "/%2576%2531/messages",
        "/v1/messages;x=1",
        "/v1;/messages",
        "\\v1\\messages",
        "/v1\\messages",
        "/x/..%2fv1/messages",
        "/V1%2Fmessages",
        "/v1/mess\u00e4ges",
    ],
)
def test_a_path_that_is_ours_in_disguise_is_refused(path: str) -> None:
    with pytest.raises(BadRequest) as refused:
        gate.is_relay_path(path)

    assert refused.value.code == "bad_path"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"evil.example")],
        [(b"host", b"")],
        [(b"host", b"localhost@evil.example")],
        [HOST, HOST],
        [HOST, (b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")],
        [HOST, (b"x-api-key", b"a"), (b"x-api-key", b"b")],
        [HOST, (b"content-length", b"1"), (b"content-length", b"1")],
        [HOST, (b"x_api_key", b"a")],
        [HOST, (b"content_length", b"9")],
        [HOST, (b"upgrade", b"websocket")],
        [HOST, (b"upgrade", b"h2c")],
    ],
)
def test_an_ambiguous_head_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(BadRequest):
        gate.check(headers)


@pytest.mark.parametrize(
    "extra", [[(b"x-a", b"1")] * 100, [(b"x-a", b"1" * 33_000)], [(b"x" * 33_000, b"1")]]
)
def test_a_large_head_is_refused(extra: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(HeadersTooLarge):
        gate.check([HOST, *extra])


@pytest.mark.parametrize("host", [b"localhost", b"127.0.0.1:8000", b"[::1]:8000", b"LOCALHOST:1"])
def test_loopback_names_are_ours_without_a_public_address(host: bytes) -> None:
    gate.check([(b"host", host)])
