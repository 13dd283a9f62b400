"""Files pass through in both directions, and belong to an account and a key."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import anthropic
import httpx2
import psutil
import pytest
from django.utils import timezone

from accounts import pool
from accounts.models import Account, Credential
from relay import endpoints, uploads
from relay.endpoints import Kind, Thing
from tests.relay.conftest import Relay
from tests.relay.raw import RawClient, RawUpstream
from tests.relay.things import FILES, asked, make_file, other_key, upstream_ended
from usage import recorder

MIB = 1024 * 1024
BORDER = "----border"
FORM = {"content-type": f"multipart/form-data; boundary={BORDER}"}
HEAD = (
    f'--{BORDER}\r\ncontent-disposition: form-data; name="file"; filename="big.bin"\r\n'
    "content-type: application/octet-stream\r\n\r\n"
).encode()
TAIL = f"\r\n--{BORDER}--\r\n".encode()


@pytest.fixture
async def sdk(relay: Relay) -> AsyncIterator[anthropic.AsyncAnthropic]:
    for name in ("console", "second"):
        await relay.add_api_key(name)
    async with anthropic.AsyncAnthropic(
        base_url=relay.url, api_key=relay.key, max_retries=0
    ) as client:
        yield client


@pytest.mark.parametrize(
    "files_of",
    [lambda sdk: sdk.files, lambda sdk: sdk.beta.files],
    ids=["files", "beta"],
)
async def test_the_official_client_uploads_lists_reads_and_deletes(
    sdk: anthropic.AsyncAnthropic, files_of: Callable[[anthropic.AsyncAnthropic], Any]
) -> None:
    files = files_of(sdk)
    data = bytes(range(256)) * 100

    made = [await files.upload(file=(f"{n}.bin", data, "image/png")) for n in range(5)]
    one = await files.retrieve_metadata(made[0].id)
    content = await files.download(made[0].id)
    listed = [file.id async for file in files.list(limit=2)]
    some = [file.id async for file in files.list(ids=[made[1].id, made[3].id])]
    await files.delete(made[0].id)

    assert (one.filename, one.mime_type, one.size_bytes) == ("0.bin", "image/png", len(data))
    assert await content.read() == data
    assert listed == [file.id for file in reversed(made)]
    assert some == [made[3].id, made[1].id]
    with pytest.raises(anthropic.NotFoundError):
        await files.retrieve_metadata(made[0].id)


async def test_the_betas_of_the_client_arrive(relay: Relay) -> None:
    await relay.link("ada")

    await make_file(relay, headers=relay.auth | {"anthropic-beta": "files-api-2025-04-14"})

    sent = {
        name.lower(): value for name, value in relay.simulator.requests(path=FILES)[0]["headers"]
    }
    assert sent["anthropic-beta"] == "files-api-2025-04-14,oauth-2025-04-20"


async def test_content_comes_with_its_own_type_name_and_length(relay: Relay) -> None:
    await relay.link("ada")
    data = b'event: error\ndata: {"type":"error","usage":{}}\n\n' * 30_000
    made = await make_file(relay, data)

    answer = await relay.http.get(f"{FILES}/{made['id']}/content", headers=relay.auth)

    assert hashlib.sha256(answer.content[:MIB]).digest() == hashlib.sha256(data[:MIB]).digest()
    assert answer.headers["content-length"] == str(len(data)) == str(len(answer.content))
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["content-disposition"] == 'attachment; filename="a.txt"'
    assert not [name for name in answer.headers if name.startswith(("set-cookie", "anthropic-"))]


async def test_content_that_breaks_off_never_looks_whole(relay: Relay) -> None:
    await relay.link("ada")
    made = await make_file(relay, b"x" * 300_000)
    path = f"{FILES}/{made['id']}/content"
    relay.simulator.script({"path": path}, cut_after=100_000)

    with pytest.raises(httpx2.RemoteProtocolError):
        await relay.http.get(path, headers=relay.auth)


async def test_an_empty_file_is_one_too(relay: Relay) -> None:
    await relay.link("ada")
    made = await make_file(relay, b"")

    answer = await relay.http.get(f"{FILES}/{made['id']}/content", headers=relay.auth)

    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_foreign_key_gets_404(relay: Relay) -> None:
    await relay.link("ada")
    made = await make_file(relay)
    foreign = await other_key(relay)
    relay.simulator.clear_requests()

    answers = [
        await relay.http.request(method, f"{FILES}/{made['id']}{behind}", headers=foreign)
        for method, behind in [("GET", ""), ("GET", "/content"), ("DELETE", "")]
    ]
    listed = await relay.http.get(f"{FILES}?ids[]={made['id']}", headers=foreign)

    assert {answer.status_code for answer in answers} == {404}
    assert {answer.json()["error"]["type"] for answer in answers} == {"not_found_error"}
    assert listed.json()["data"] == []
    assert relay.simulator.requests() == []


async def test_a_file_of_an_account_that_was_removed_is_gone(relay: Relay) -> None:
    await relay.link("ada")
    made = await make_file(relay)
    await Account.objects.aupdate(deleted_at="2026-01-01T00:00:00Z")
    pool.snapshot.invalidate()

    answer = await relay.http.get(f"{FILES}/{made['id']}", headers=relay.auth)

    assert answer.status_code == 404


async def test_an_upload_arrives_byte_for_byte_with_and_without_a_length(relay: Relay) -> None:
    await relay.link("ada")
    data = bytes(range(256)) * 20_000

    async def pieces() -> AsyncIterator[bytes]:
        yield HEAD
        for begin in range(0, len(data), 10_007):
            yield data[begin : begin + 10_007]
        yield TAIL

    headers = relay.auth | FORM
    chunked = await relay.http.post(FILES, content=pieces(), headers=headers)
    whole = await relay.http.post(FILES, content=HEAD + data + TAIL, headers=headers)

    assert (chunked.status_code, whole.status_code) == (200, 200)
    digest = hashlib.sha256(HEAD + data + TAIL).hexdigest()
    assert [r["body_sha256"] for r in relay.simulator.requests(path=FILES)] == [digest] * 2
    lengths = [
        dict(r["headers"]).get("content-length") for r in relay.simulator.requests(path=FILES)
    ]
    sizes = [length and int(length) for length in lengths]
    assert sizes == [None, len(HEAD + data + TAIL)]


async def test_an_upload_cut_by_the_client_ends_upstream_and_leaves_no_file(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, Any]] = []
    monkeypatch.setattr(recorder, "append", rows.append)
    await relay.link("ada")
    headers = relay.auth | FORM | {"content-length": str(10 * MIB)}
    client = await _begin(relay, headers, HEAD + b"x" * MIB)
    await asyncio.sleep(0.3)

    client.hang_up()

    ended = await upstream_ended(relay, FILES)
    assert ended["ended"] == "client_gone"
    assert relay.simulator.files() == []
    await relay.running.idle()
    assert [(row["status"], row["ended"]) for row in rows] == [(499, "client_gone")]


async def test_an_upload_over_the_limit_is_refused_before_a_byte_is_read(relay: Relay) -> None:
    await relay.link("ada")
    relay.simulator.clear_requests()
    client = await _begin(relay, relay.auth | FORM | {"content-length": str(502 * MIB)}, b"")

    head = await client.head()

    assert " 413 " in head
    assert "x-relay-error: too_large" in head
    assert relay.simulator.requests() == []


async def test_an_upload_that_grows_over_the_limit_is_refused(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await relay.link("ada")
    small = Thing("file", FILES, 100_000)
    monkeypatch.setitem(endpoints.SHAPES, FILES, {"POST": (Kind.CREATE, small)})

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 10_000

    answer = await relay.http.post(FILES, content=pieces(), headers=relay.auth | FORM)

    assert answer.status_code == 413
    assert answer.headers["x-should-retry"] == "false"
    assert (await upstream_ended(relay, FILES))["ended"] == "client_gone"


async def test_an_upload_that_stands_still_is_ended(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await relay.link("ada")
    monkeypatch.setattr(uploads, "IDLE_SECONDS", 0.2)
    headers = relay.auth | FORM | {"content-length": str(MIB)}

    client = await _begin(relay, headers, HEAD)
    head = await asyncio.wait_for(client.head(), 5)

    assert " 408 " in head
    assert (await upstream_ended(relay, FILES))["ended"] == "client_gone"


async def test_an_upstream_that_takes_nothing_is_given_up(
    relay: Relay, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)
        writer.close()

    await relay.link("ada")
    monkeypatch.setattr(uploads, "STALLED_SECONDS", 0.5)
    server = await asyncio.start_server(ignore, "127.0.0.1", 0, limit=1024)
    nobody = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_base_url": nobody})
    client = await _begin(relay, relay.auth | FORM | {"content-length": str(100 * MIB)}, HEAD)
    feeding = asyncio.ensure_future(_feed(client, 100 * MIB - len(HEAD)))

    head = await asyncio.wait_for(client.head(), 4)

    assert " 504 " in head
    feeding.cancel()
    client.hang_up()
    server.close()


async def test_a_compressed_upload_is_refused(relay: Relay) -> None:
    headers = relay.auth | FORM | {"content-encoding": "gzip"}

    answer = await relay.http.post(FILES, content=b"x", headers=headers)

    assert answer.status_code == 415


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429}, {"reset": True}])
async def test_an_upload_is_never_sent_twice(relay: Relay, fault: dict[str, Any]) -> None:
    await relay.link("ada", "grace")
    relay.simulator.script({"path": FILES}, times=None, **fault)

    answer = await relay.http.post(FILES, files={"file": ("a", b"x")}, headers=relay.auth)

    assert answer.status_code >= 400
    assert len(asked(relay, FILES, "POST")) == 1


async def test_a_refusal_in_the_middle_of_an_upload_reaches_the_client(
    relay: Relay, settings: Any
) -> None:
    await relay.link("ada")
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}'
    head = b"HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    async with RawUpstream([head % len(body) + body, 5.0]) as upstream:
        settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_base_url": upstream.url})
        headers = relay.auth | FORM | {"content-length": str(10 * MIB)}
        client = await _begin(relay, headers, HEAD + b"x" * 100_000)
        answer = await asyncio.wait_for(client.head(), 3)
        await asyncio.wait_for(upstream.ended.wait(), 3)

    assert " 400 " in answer


async def test_a_connection_that_never_came_about_is_tried_once_more(
    relay: Relay, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, Any]] = []
    monkeypatch.setattr(recorder, "append", rows.append)
    await relay.link("ada")
    nobody = {"upstream_base_url": "http://127.0.0.1:9"}
    settings.CONFIG = settings.CONFIG.model_copy(update=nobody)

    answer = await relay.http.post(FILES, files={"file": ("a", b"x")}, headers=relay.auth)
    await relay.running.idle()

    assert answer.headers["x-relay-error"] == "upstream_connect"
    assert [(row["attempts"], row["status"]) for row in rows] == [(2, 502)]


async def test_a_token_near_its_end_is_renewed_before_an_upload(relay: Relay) -> None:
    await relay.link("ada")
    await Credential.objects.aupdate(expires_at=timezone.now() + timedelta(seconds=30))

    await make_file(relay)

    assert relay.simulator.token_ledger()["refreshes"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [100 * MIB, 499 * MIB])
async def test_a_large_upload_and_its_download_take_no_memory(relay: Relay, size: int) -> None:
    await relay.link("ada")
    block, process = b"0123456789abcdef" * 4096, psutil.Process()
    high = before = process.memory_info().rss

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal high
        yield HEAD
        for _ in range(size // len(block)):
            high = max(high, process.memory_info().rss)
            yield block
        yield TAIL

    headers = relay.auth | FORM | {"content-length": str(len(HEAD) + size + len(TAIL))}
    made = await relay.http.post(FILES, content=pieces(), headers=headers, timeout=120)
    path, got = f"{FILES}/{made.json()['id']}/content", 0
    async with relay.http.stream("GET", path, headers=relay.auth, timeout=120) as content:
        async for piece in content.aiter_raw():
            got += len(piece)
            high = max(high, process.memory_info().rss)

    digest = hashlib.sha256()
    for _ in range(size // len(block)):
        digest.update(block)
    assert relay.simulator.files()[0]["sha256"] == digest.hexdigest()
    assert got == size
    assert high - before < 32 * MIB


async def _feed(client: RawClient, size: int) -> None:
    for _ in range(size // MIB):
        client.writer.write(b"x" * MIB)
        await client.writer.drain()


async def _begin(relay: Relay, headers: dict[str, str], body: bytes) -> RawClient:
    """Send a head with its own length and only the beginning of its body."""
    parts = urlsplit(relay.url)
    client = RawClient(*await asyncio.open_connection(parts.hostname, parts.port))
    lines = [f"POST {FILES} HTTP/1.1", f"host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    client.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await client.writer.drain()
    return client
