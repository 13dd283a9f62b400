"""An account's requests go by its own proxy; one that fails is the account's affair (D02)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from accounts import endpoints
from accounts.models import Account
from events.models import Event
from lib import http
from relay import effects
from relay.cooldowns import Detours
from relay.upstream import aiohttp
from relay.upstream.base import NotConnected, ProxyFailed, Route
from tests.relay.conftest import Relay
from tests.relay.proxies import HttpProxy, SocksProxy
from tests.relay.raw import RawUpstream

PASSWORD, WRONG = "s3cret-of-the-proxy", "wr0ng"
OK = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)

kinds = pytest.mark.parametrize("kind", [HttpProxy, SocksProxy])


@pytest.fixture(autouse=True)
def loopback(settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"allow_loopback_upstreams": True})


@pytest.fixture
async def upstream() -> AsyncIterator[RawUpstream]:
    async with RawUpstream(OK) as server:
        yield server
    await aiohttp.close()


async def _through(relay: Relay, name: str, proxy: str) -> None:
    await sync_to_async(endpoints.change)(relay.accounts[name], by="test", proxy=proxy)


@kinds
async def test_requests_go_by_the_proxy_and_through_nothing_else(
    relay: Relay, loopback: None, kind: type[HttpProxy]
) -> None:
    await relay.link("ada")
    async with kind(PASSWORD) as proxy:
        await _through(relay, "ada", proxy.url(PASSWORD))

        answers = [await relay.ask(), await relay.ask(stream=True)]

        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[1].text.endswith('data: {"type":"message_stop"}\n\n')
        place = relay.simulator.url.removeprefix("http://")
        assert proxy.asked
        assert all(place in asked for asked in proxy.asked)
    assert relay.served() == ["ada", "ada"]
    assert relay.simulator.seen("s3cret") == 0


async def test_a_proxy_that_refuses_benches_its_account_and_the_request_moves_on(
    relay: Relay, loopback: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await relay.link("ada", "grace")
    async with SocksProxy(PASSWORD) as proxy:
        await _through(relay, "ada", proxy.url(WRONG))
        before = timezone.now()

        statuses = [(await relay.ask()).status_code for _ in range(4)]

    await effects.settled()
    assert statuses == [200] * 4
    assert relay.served() == ["grace"] * 4
    until = (await relay.account("ada")).cooldown_until
    assert until is not None
    assert timedelta(seconds=29) < until - before < timedelta(seconds=35)
    events = Event.objects.filter(kind="account.cooldown")
    assert [event.data["reason"] async for event in events] == ["proxy_failed"]
    told = caplog.text + str([event.data async for event in Event.objects.all()])
    assert WRONG not in told


async def test_without_another_account_the_client_gets_a_502(relay: Relay, loopback: None) -> None:
    await relay.link("ada")
    async with HttpProxy() as gone:
        url = gone.url()
    await _through(relay, "ada", url)

    answer = await relay.ask()

    assert answer.status_code == 502
    assert answer.headers["x-relay-error"] == "upstream_connect"
    assert await Account.objects.filter(status="active").acount() == 1


@kinds
async def test_the_name_is_looked_up_by_the_proxy(
    upstream: RawUpstream, kind: type[HttpProxy]
) -> None:
    url = upstream.url.replace("127.0.0.1", "localhost")
    async with kind() as proxy:
        way = Route(proxy.url().replace("socks5:", "socks5h:"), is_guarded=True)
        answer = await aiohttp.client().send("GET", url + "/x", [], b"", route=way)
        assert (answer.status, await answer.read()) == (200, b"ok")
        answer.close()

        assert len(proxy.asked) == 1
        assert "localhost" in proxy.asked[0]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("ours", [WRONG, ""])
@kinds
async def test_a_refusal_of_the_proxy_is_no_answer_of_the_upstream(
    upstream: RawUpstream, kind: type[HttpProxy], ours: str, scheme: str
) -> None:
    url = upstream.url.replace("http", scheme)
    async with kind(PASSWORD) as proxy:
        for fresh in (False, True):
            with pytest.raises(ProxyFailed) as failed:
                await aiohttp.client().send(
                    "POST", url, [], b"{}", route=Route(proxy.url(ours)), fresh=fresh
                )

    assert WRONG not in str(failed.value)
    assert upstream.requests == []


async def test_a_tunnel_to_something_else_is_the_proxys_fault() -> None:
    """It opens, but what answers there does not speak TLS."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with HttpProxy() as proxy:
        with pytest.raises(ProxyFailed):
            await aiohttp.client().send("GET", url, [], b"", route=Route(proxy.url()))

        assert proxy.asked[0].startswith("CONNECT 127.0.0.1:")
    server.close()
    await aiohttp.close()


async def test_without_a_proxy_nothing_is_a_proxys_fault(upstream: RawUpstream) -> None:
    url = upstream.url
    upstream._server.close()

    with pytest.raises(NotConnected):
        await aiohttp.client().send("GET", url, [], b"")


async def test_ways_that_nobody_takes_any_more_are_closed(
    upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = aiohttp.client()
    monkeypatch.setattr(aiohttp, "UNUSED_SECONDS", -1)
    async with HttpProxy() as old, HttpProxy() as new:
        busy = await client.send("GET", upstream.url, [], b"", route=Route(old.url()))
        for _ in range(2):
            answer = await client.send("GET", upstream.url, [], b"", route=Route(new.url()))
            answer.close()
        assert set(client._ways) == {Route(old.url()), Route(new.url())}

        busy.close()
        answer = await client.send("GET", upstream.url, [], b"")
        answer.close()

    assert len(client._ways) == 1


@kinds
async def test_the_control_plane_goes_by_the_proxy_too(
    upstream: RawUpstream, kind: type[HttpProxy]
) -> None:
    async with kind(PASSWORD) as proxy:
        async with http.client(proxy=proxy.url(PASSWORD)) as client:
            assert (await client.get(upstream.url)).text == "ok"
        assert len(proxy.asked) == 1

        async with http.client(proxy=proxy.url(WRONG)) as client:
            refused = (httpx2.ProxyError, httpx2.HTTPStatusError)
            with pytest.raises(refused):
                (await client.get(upstream.url)).raise_for_status()


def test_a_proxy_that_goes_on_failing_rests_longer_each_time() -> None:
    detours, now, seconds = Detours(), NOW, []
    for _ in range(12):
        until = detours.next(1, now)
        # A second request that failed with it changes nothing.
        assert detours.next(1, now + timedelta(seconds=1)) == until
        seconds.append((until - now).total_seconds())
        now = until

    assert seconds[:3] == [30, 60, 90]
    assert seconds[-3:] == [300, 300, 300]
    assert detours.next(2, now) == now + timedelta(seconds=30)
    detours.forgive(1)
    assert detours.next(1, now) == now + timedelta(seconds=30)
