"""What `doctor` looks at outside: upstream and token host, their clock, and unsafe settings."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx2
from django.conf import settings

from lib import http
from proxy_project import checkups
from proxy_project.checkups import FAILED, OK, WARNING
from proxy_project.config import Config
from proxy_project.doctor import Check, Finding

SECONDS = 5.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
OURS = "api.anthropic.com"


def upstream() -> Iterator[Finding]:
    """Look whether the upstream answers, and compare clocks by its answer."""
    yield from _ask("upstream", settings.CONFIG.upstream_base_url, "UPSTREAM_BASE_URL")


def token_host() -> Iterator[Finding]:
    """Look whether the host answers where tokens are renewed."""
    yield from _ask("token host", settings.CONFIG.oauth_token_url, "OAUTH_TOKEN_URL")


def _ask(name: str, url: str, setting: str) -> Iterator[Finding]:
    """Ask for the root, without any credential: whatever comes back shows that it can be had."""
    parts = urlsplit(url)
    host, started = parts.hostname or "", time.monotonic()
    try:
        status, date = asyncio.run(_head(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"))
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError) as error:
        told = f"{host} cannot be reached ({type(error).__name__})."
        step = f"Look at name resolution, firewall and TLS from this machine, and at {setting}."
        yield Finding(name, FAILED, told, step)
        return
    taken = time.monotonic() - started
    yield Finding(name, OK, f"{host} answers ({status}, {taken * 1000:.0f} ms).")
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return
    # It is written in whole seconds, somewhere on the way.
    yield checkups.clock(host, theirs + 0.5 - (time.time() - taken / 2))


async def _head(url: str) -> tuple[int, str]:
    async with asyncio.timeout(SECONDS), http.client() as client:
        response = await client.head(url)
        return response.status_code, response.headers.get("date", "")


def unsafe_settings() -> Iterator[Finding]:
    """Look for settings that work and are unsafe."""
    config = settings.CONFIG
    told = [(told, step) for is_so, told, step in UNSAFE if is_so(config)]
    yield from (Finding("settings", WARNING, sentence, step) for sentence, step in told)
    if not told:
        yield Finding("settings", OK, "None looks unsafe.")


def _is_plain(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in LOOPBACK


def _trusts_everybody(config: Config) -> bool:
    networks = [ipaddress.ip_network(text, strict=False) for text in config.trusted_proxies]
    return any(network.prefixlen == 0 for network in networks)


def _is_readable(config: Config) -> bool:
    return any(path.stat().st_mode & 0o077 for path in config.data_dir.glob("*.secret"))


UNSAFE: tuple[tuple[Callable[[Config], bool], str, str], ...] = (
    (
        lambda config: _is_plain(config.public_url),
        "PUBLIC_URL is http: keys and cookies cross the network in the clear.",
        "Put a proxy with TLS in front, and let PUBLIC_URL begin with https://.",
    ),
    (
        _trusts_everybody,
        "TRUSTED_PROXIES is everybody: any client can claim any address.",
        "Name the addresses of your proxies only.",
    ),
    (
        lambda config: config.public_url.startswith("https:") and not config.trusted_proxies,
        "PUBLIC_URL is https and no proxy is trusted: all clients seem to be the proxy, by http.",
        "Name the addresses of your proxies in TRUSTED_PROXIES.",
    ),
    (
        lambda config: _is_plain(config.upstream_base_url) or _is_plain(config.oauth_token_url),
        "Upstream or token host is http: credentials cross the network in the clear.",
        "Let UPSTREAM_BASE_URL and OAUTH_TOKEN_URL begin with https://.",
    ),
    (
        lambda config: urlsplit(config.upstream_base_url).hostname not in (OURS, *LOOPBACK),
        f"UPSTREAM_BASE_URL is not {OURS}: that host reads every prompt and every token.",
        "Make sure that it is meant.",
    ),
    (
        lambda config: config.log_level == "DEBUG",
        "LOG_LEVEL is DEBUG: the log grows fast, and tells more than most should read.",
        "Set LOG_LEVEL=INFO.",
    ),
    (
        lambda config: config.relay_debug_headers,
        "RELAY_DEBUG_HEADERS shows clients the names of accounts.",
        "Switch it off when the fault is found.",
    ),
    (
        lambda config: config.session_limit and config.session_fail_mode == "open",
        "SESSION_FAIL_MODE is open: while Redis is away a client may have any number of sessions.",
        "Set SESSION_FAIL_MODE=bounded.",
    ),
    (
        lambda config: config.allow_loopback_upstreams,
        "ALLOW_LOOPBACK_UPSTREAMS lets operators reach services of this machine.",
        "Switch it off unless a local model is served.",
    ),
    (
        _is_readable,
        "A file of secrets in the data folder can be read by other users.",
        "Run chmod 600 on the .secret files.",
    ),
)
ALL = (
    Check("database", checkups.database),
    Check("redis", checkups.redis_server),
    Check("worker", checkups.jobs),
    Check("credentials", checkups.credentials, 20.0),
    Check("accounts", checkups.accounts),
    Check("upstream", upstream, SECONDS + 1),
    Check("token host", token_host, SECONDS + 1),
    Check("disk", checkups.disk),
    Check("settings", unsafe_settings),
    Check("versions", checkups.versions),
)
