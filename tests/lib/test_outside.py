"""Addresses that somebody types lead to the internet, or where the settings say."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from lib import http, outside, proxies
from lib.outside import Forbidden

Configure = Callable[..., None]


@pytest.fixture
def configure(settings: Any) -> Configure:
    def update(**changes: Any) -> None:
        settings.CONFIG = settings.CONFIG.model_copy(update=changes)

    return update


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to; numbers resolve to themselves, everything else is unknown."""
    known: dict[str, list[str]] = {}
    ask = socket.getaddrinfo

    def look_up(host: str, port: Any, **options: Any) -> Any:
        if host in known:
            return [(socket.AF_INET, 1, 6, "", (address, port or 0)) for address in known[host]]
        return ask(host, port, **options, flags=socket.AI_NUMERICHOST)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.mark.parametrize(
    "url",
    [
        "https://1.1.1.1",
        "https://1.1.1.1:8443/a/b-c_d.e",
        "https://[2606:4700::1111]/v1",
        "https://[::ffff:8.8.8.8]",
        "https://[64:ff9b::808:808]",
        "https://public.example",
        "https://xn--mnchen-3ya.example",
    ],
)
def test_public_addresses_may_be_reached(url: str, names: dict[str, list[str]]) -> None:
    names |= {"public.example": ["8.8.8.8"], "xn--mnchen-3ya.example": ["8.8.4.4"]}

    outside.check(url)


@pytest.mark.parametrize(
    "url",
    [
        # Other ways to write the address of this machine, or of a private one.
        "https://127.0.0.1",
        "https://127.8.9.10",
        "https://2130706433",
        "https://0x7f000001",
        "https://0x7f.1",
        "https://0177.0.0.1",
        "https://017700000001",
        "https://127.1",
        "https://1.2.3",
        "https://256.1.1.1",
        "https://0",
        "https://0.0.0.0",
        "https://[::]",
        "https://[::1]",
        "https://[0:0:0:0:0:0:0:1]",
        "https://[::127.0.0.1]",
        "https://[::ffff:127.0.0.1]",
        "https://[::ffff:10.0.0.1]",
        "https://[::ffff:a00:1]",
        "https://[64:ff9b::10.0.0.1]",
        "https://[64:ff9b:1::a00:1]",
        "https://[2002:7f00:1::]",
        "https://[2002:a00:1::1]",
        "https://[2001:0:4136:e378:8000:63bf:f5ff:fffe]",
        "https://[fe80::1]",
        "https://[fe80::1%25eth0]",
        "https://[fc00::1]",
        "https://[fec0::1]",
        "https://[ff02::1]",
        "https://[2001:db8::1]",
        "https://[4000::1]",
        "https://10.1.2.3",
        "https://172.16.0.1",
        "https://172.31.255.255",
        "https://192.168.1.1",
        "https://100.64.0.1",
        "https://169.254.1.1",
        "https://192.0.0.8",
        "https://198.18.0.1",
        "https://203.0.113.1",
        "https://224.0.0.1",
        "https://255.255.255.255",
        # Names.
        "https://localhost",
        "https://LOCALHOST",
        "https://sub.localhost",
        "https://mixed.example",
        "https://unknown.example",
        "https://metadata.google.internal",
        # Metadata services.
        "https://169.254.169.254",
        "https://[fd00:ec2::254]",
        "https://[::ffff:169.254.169.254]",
        "https://100.100.100.200",
        "https://168.63.129.16",
        # Not https.
        "http://1.1.1.1",
        "ftp://1.1.1.1",
        "file:///etc/passwd",
        "gopher://1.1.1.1",
        "HTTPS://1.1.1.1",
        # What two parsers may read in two ways.
        "https://1.1.1.1@127.0.0.1",
        "https://user:secret@1.1.1.1",
        "https://127.0.0.1#@1.1.1.1",
        "https://1.1.1.1\\@127.0.0.1",
        "https://1.1.1.1\\.evil.example",
        "https://1.1.1.1/#fragment",
        "https://1.1.1.1?query=1",
        "https://1.1.1.1/?query=1",
        "https://1.1.1.1/a b",
        "https://1.1.1.1/\r\nHost: x",
        "https://1.1.1.1/\x00",
        "https://1.1.1.1\t",
        " https://1.1.1.1",
        "https:1.1.1.1",
        "https:///1.1.1.1",
        "//1.1.1.1",
        "https://",
        "",
        "https://1.1.1.1:0",
        "https://1.1.1.1:65536",
        "https://1.1.1.1:٤٤٣",
        "https://1.1.1.1:",
        "https://１.1.1.1",
        "https://public.example.",
        "https://localhost.",
        "https://a..example",
        "https://-a.example",
        "https://münchen.example",
        "https://ⓔxample.com",
        "https://%31.1.1.1",
        "https://1.1.1.1/" + "a" * 500,
        "https://[1.1.1.1]",
        "https://[::1",
    ],
)
def test_hostile_addresses_are_refused(url: str, names: dict[str, list[str]]) -> None:
    names |= {
        "localhost": ["127.0.0.1"],
        "LOCALHOST": ["127.0.0.1"],
        "sub.localhost": ["127.0.0.1"],
        "public.example": ["8.8.8.8"],
        "mixed.example": ["8.8.8.8", "10.0.0.1"],
        "metadata.google.internal": ["169.254.169.254"],
    }

    with pytest.raises(Forbidden) as refused:
        outside.check(url)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://127.0.0.1", {"allow_loopback_upstreams": True}),
        ("http://localhost:11434", {"allow_loopback_upstreams": True}),
        ("http://[::1]:8000", {"allow_loopback_upstreams": True}),
        ("https://10.1.2.3", {"private_upstreams": ("10.0.0.0/8",)}),
        ("http://10.1.2.3:8080", {"private_upstreams": ("10.0.0.0/8",)}),
        ("http://[::ffff:10.1.2.3]", {"private_upstreams": ("10.0.0.0/8",)}),
        ("https://[fd12::1]", {"private_upstreams": ("fd12::/16",)}),
    ],
)
def test_settings_open_loopback_and_named_networks(
    url: str, allowed: dict[str, Any], names: dict[str, list[str]], configure: Configure
) -> None:
    names["localhost"] = ["127.0.0.1"]
    with pytest.raises(Forbidden):
        outside.check(url)

    configure(**allowed)

    outside.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://169.254.169.254",
        "http://[fd00:ec2::254]",
        "https://[64:ff9b::a9fe:a9fe]",
        "http://168.63.129.16",
        "http://8.8.8.8",
    ],
)
def test_no_setting_opens_metadata_services_or_plain_http(url: str, configure: Configure) -> None:
    configure(
        allow_loopback_upstreams=True,
        private_upstreams=("169.254.0.0/16", "10.0.0.0/8", "fd00::/8", "168.63.0.0/16"),
    )

    with pytest.raises(Forbidden):
        outside.check(url)


def test_a_query_and_an_unknown_name_are_let_through_where_they_make_sense(
    names: dict[str, list[str]],
) -> None:
    outside.check("https://1.1.1.1/hook?token=a&b=%20", with_query=True)
    outside.check("https://inside.example", resolves_here=False)
    with pytest.raises(Forbidden):
        outside.check("http://inside.example", resolves_here=False)
    with pytest.raises(Forbidden):
        outside.check("https://10.0.0.1", resolves_here=False)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("https://ann:hidden@10.0.0.1:3128/", "https://10.0.0.1:3128"),
        ("socks5://ann:h%40%3Adden@[fd12::1]:1080", "socks5://[fd12::1]:1080"),
        ("socks5h://ann@proxy.example:1080", "socks5h://proxy.example:1080"),
    ],
)
def test_a_proxy_may_be_private_and_is_shown_without_its_password(
    url: str, shown: str, names: dict[str, list[str]]
) -> None:
    names["proxy.example"] = ["192.168.0.1"]

    proxies.check(url)

    assert proxies.parse(url).shown == shown
    assert "hidden" not in repr(proxies.parse(url))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:3128",
        "socks5://[::1]:1080",
        "http://0.0.0.0:3128",
        "http://169.254.169.254:80",
        "socks4://10.0.0.1:1080",
        "10.0.0.1:3128",
        "http://10.0.0.1",
        "http://ann:hid den@10.0.0.1:1",
        "http://ann:hidden@10.0.0.1:1/path",
        "http://ann:hidden@10.0.0.1:1?x",
        "http://ann:hidden%0d%0a@10.0.0.1:1",
        "http://ann:hidden%C3%A9@10.0.0.1:1",
        "http://a%3Ab:hidden@10.0.0.1:1",
        "http://a@b@10.0.0.1:1",
        "http://unknown.example:3128",
        "",
    ],
)
def test_a_proxy_that_cannot_be_is_refused(url: str, names: dict[str, list[str]]) -> None:
    with pytest.raises(Forbidden) as refused:
        proxies.check(url)

    assert "hidden" not in str(refused.value)


def test_loopback_proxies_have_the_switch(configure: Configure) -> None:
    configure(allow_loopback_upstreams=True)

    proxies.check("http://127.0.0.1:3128")


@pytest.fixture
async def local() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server on loopback, and what it was sent."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(65536))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield str(server.sockets[0].getsockname()[1]), seen
    server.close()


async def test_a_name_that_has_moved_inside_is_not_connected_to(
    names: dict[str, list[str]], local: tuple[str, list[bytes]], configure: Configure
) -> None:
    port, seen = local
    names["rebound.example"] = ["127.0.0.1"]

    async with http.client(guarded=True) as client:
        with pytest.raises(httpx2.ConnectError, match="this machine"):
            await client.get(f"https://rebound.example:{port}/")
        with pytest.raises(httpx2.ConnectError, match="this machine"):
            await client.get(f"http://127.0.0.1:{port}/")
    assert seen == []

    configure(allow_loopback_upstreams=True)
    async with http.client(guarded=True) as client:
        answer = await client.get(f"http://rebound.example:{port}/a?b=1")
    assert answer.text == "ok"
    assert answer.url == f"http://rebound.example:{port}/a?b=1"
    assert f"host: rebound.example:{port}".encode() in seen[0].lower()


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_whatever_a_proxy_does_is_an_error_of_the_client(
    scheme: str, local: tuple[str, list[bytes]]
) -> None:
    """It speaks neither SOCKS nor CONNECT."""
    port, _ = local

    async with http.client(proxy=f"{scheme}://ann:hidden@127.0.0.1:{port}") as client:
        with pytest.raises(httpx2.HTTPError) as failed:
            await client.get("https://upstream.example/")

    assert "hidden" not in str(failed.value)
