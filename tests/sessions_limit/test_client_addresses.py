"""From which address a request comes, whatever its headers claim."""

from __future__ import annotations

import random
from typing import Any

import pytest

from lib import peer
from sessions_limit.identity import block_of, client_of

PEER, PROXY, CLIENT = "198.51.100.7", "10.0.0.1", "203.0.113.5"
TRUSTED = ("10.0.0.0/8", "fd00::/8")


@pytest.fixture
def behind_proxies(settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"trusted_proxies": TRUSTED})


def scope(address: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded]
    return {"client": address and (address, 1234), "headers": headers}


@pytest.mark.parametrize("address", [PEER, PROXY, "::1"])
def test_without_trusted_proxies_it_is_the_peer(address: str) -> None:
    assert peer.of(scope(address, CLIENT)) == address


def test_a_thousand_made_up_headers_from_one_peer_are_one_client(behind_proxies: None) -> None:
    rng = random.Random(6)

    def header() -> str:
        hops = [".".join(str(rng.randrange(256)) for _ in range(4)) for _ in range(3)]
        return ", ".join(hops)

    found = {
        client_of("ip", 1, peer.of(scope(PEER, header())), f"agent/{n}").name for n in range(1000)
    }

    assert found == {f"ip:{PEER}"}


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ([CLIENT], CLIENT),
        ([f"6.6.6.6, {CLIENT}"], CLIENT),
        ([f"6.6.6.6, {CLIENT}, 10.0.0.9, 10.1.2.3"], CLIENT),
        # As a proxy does that adds a line instead of a hop.
        (["6.6.6.6", f"7.7.7.7 ,{CLIENT}", "10.0.0.9"], CLIENT),
        ([f"\t{CLIENT} "], CLIENT),
        ([f"::ffff:{CLIENT}"], CLIENT),
        ([f"{CLIENT}, ::ffff:10.0.0.9"], CLIENT),
        (["2001:DB8:0::1"], "2001:db8::1"),
        (["2001:db8::1, fd00::9"], "2001:db8::1"),
        (["fe80::1%eth0"], "fe80::1"),
        # Nobody is left but proxies.
        (["10.0.0.9"], PROXY),
        ([], PROXY),
        # What cannot be read makes all to the left of it worth nothing.
        ([""], PROXY),
        ([f"{CLIENT},"], PROXY),
        ([f"{CLIENT}, unknown, 10.0.0.9"], PROXY),
        ([f"{CLIENT}:443"], PROXY),
        (["[2001:db8::1]:443"], PROXY),
        (["203.0.113.05"], PROXY),
        (["203.0.113"], PROXY),
        (["3405803781"], PROXY),
        (["0xcb.0.113.5"], PROXY),
        (["203.0.113.5/32"], PROXY),
        (["\xb2\xb30.1.1.1"], PROXY),
        (["1.1.1.1\0"], PROXY),
        (["localhost"], PROXY),
        (["a" * 10_000], PROXY),
        # A client that sends many hops before the true one.
        (["6.6.6.6," * 5000 + CLIENT], CLIENT),
        ([CLIENT + ",10.0.0.9" * 31], CLIENT),
        ([CLIENT + ",10.0.0.9" * 32], PROXY),
    ],
)
def test_behind_a_trusted_proxy_it_is_the_rightmost_other_hop(
    behind_proxies: None, forwarded: list[str], expected: str
) -> None:
    assert peer.of(scope(PROXY, *forwarded)) == expected
    assert peer.of(scope(f"::ffff:{PROXY}", *forwarded)) == expected


@pytest.mark.parametrize("address", [None, "", "/run/socket"])
def test_a_unix_socket_has_no_address(behind_proxies: None, address: str | None) -> None:
    assert peer.of(scope(address, CLIENT)) == ""
    assert client_of("ip", 1, "", "").name == "ip:local"


def test_an_address_of_ipv4_is_the_same_in_ipv6() -> None:
    assert peer.of(scope(f"::ffff:{CLIENT}")) == CLIENT


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (CLIENT, CLIENT),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::1", "2001:db8:0:2::/64"),
        ("", "local"),
    ],
)
def test_addresses_of_ipv6_count_by_their_network(address: str, expected: str) -> None:
    assert block_of(address) == expected


def test_a_client_is_its_key_its_address_or_that_with_its_user_agent() -> None:
    def name(mode: Any, key: int = 1, address: str = CLIENT, agent: str = "a") -> str:
        return client_of(mode, key, address, agent).name

    assert name("key") == name("key", address=PEER, agent="b") != name("key", key=2)
    assert name("ip") == name("ip", key=2, agent="b") != name("ip", address=PEER)
    assert name("ip+ua") == name("ip+ua", key=2) != name("ip+ua", agent="b")
    assert name("ip+ua") != name("ip+ua", address=PEER)


@pytest.mark.parametrize("agent", ["", "a/b|c d", "\r\n", "\ud800", "a" * 100_000])
def test_the_name_of_a_client_is_plain_and_short_whatever_its_user_agent(agent: str) -> None:
    name = client_of("ip+ua", 1, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", agent).name

    assert len(name) <= 60
    assert name.isascii()
    assert not any(sign.isspace() for sign in name)
