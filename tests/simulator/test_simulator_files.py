"""Files come back as they were sent; of a large one only size, hash and beginning are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import anthropic
import pytest

from tests.support.simulator import Simulator

MIB = 1024 * 1024


@pytest.fixture
def sdk(simulator: Simulator) -> Iterator[anthropic.Anthropic]:
    key = simulator.api_key("sdk")
    with anthropic.Anthropic(api_key=key, base_url=simulator.url, max_retries=0) as made:
        yield made


def test_a_small_file_comes_back_as_it_was(sdk: anthropic.Anthropic) -> None:
    data = b"\r\n--almost a border\r\n" * 1000

    made = sdk.files.upload(file=("notes.txt", data, "text/plain"))
    back = sdk.files.download(made.id)

    assert (made.filename, made.mime_type, made.size_bytes) == ("notes.txt", "text/plain", 21000)
    assert back.read() == data
    assert back.headers["content-disposition"] == 'attachment; filename="notes.txt"'


def test_a_large_file_keeps_its_size_and_hash(
    sdk: anthropic.Anthropic, simulator: Simulator
) -> None:
    data = bytes(range(256)) * (20 * MIB // 256)

    made = sdk.files.upload(file=("big.bin", data))
    back = sdk.files.download(made.id).read()

    kept = simulator.files()[0]
    assert kept["sha256"] == hashlib.sha256(data).hexdigest()
    assert kept["size_bytes"] == len(back) == len(data)
    assert back[:MIB] == data[:MIB]


def test_files_are_listed_by_cursor_and_deleted(sdk: anthropic.Anthropic) -> None:
    made = [sdk.files.upload(file=(f"{n}.txt", b"x")).id for n in range(5)]

    listed = [file.id for file in sdk.files.list(limit=2)]
    some = [file.id for file in sdk.files.list(ids=made[1:3])]
    sdk.files.delete(made[0])

    assert listed == made[::-1]
    assert sorted(some) == sorted(made[1:3])
    with pytest.raises(anthropic.NotFoundError):
        sdk.files.retrieve_metadata(made[0])
