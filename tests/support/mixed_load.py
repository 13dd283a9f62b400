"""Thousands of requests of every kind: streams, cuts, hang-ups, refusals, lost connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.books import PRICES, UNKNOWN
from tests.support.simulator import Simulator

MODELS = (*PRICES, UNKNOWN)
# The upstream knows a request by this header, which the relay passes on.
NUMBER = "x-claude-code-number"
# What happens to a request that carries this word, and how many of a hundred do.
FAULTS = {"cut": 8, "reset": 2, "lost": 3, "refused": 2, "busy": 1, "broken": 2, "wrong": 2}
FAULTS |= {"error": 2, "slow": 6, "silent": 2, "leaving": 2, "count": 3, "spare": 1}
CUTS = range(40, 2600, 80)
NOBODY = "nobody"


@dataclass(frozen=True)
class Wish:
    """One request as its client means it; `leaves_after` bytes of the body it hangs up."""

    number: int
    key: str
    model: str
    stream: bool
    fault: str
    usage: Mapping[str, Any]
    leaves_after: int | None = None


@dataclass
class Seen:
    """What its client saw of the answer; `ended` is whole, cut or left."""

    wish: Wish
    status: int = 0
    relay_id: str = ""
    upstream_id: str = ""
    size: int = 0
    ended: str = "left"


def script(simulator: Simulator, weak: Sequence[str]) -> None:
    """Arrange the faults; those that another account may mend befall the `weak` ones only."""

    def on(word: str, *, account: str | None = None, **action: Any) -> None:
        match: dict[str, Any] = {"header": {"x-app": word}}
        simulator.script(match | ({"account": account} if account else {}), times=None, **action)

    for place in CUTS:
        on(f"cut-{place}", cut_after=place)
    listed = [{"type": "model", "id": model, "display_name": model} for model in MODELS]
    models = {"data": listed, "has_more": False}
    simulator.script({"path": "/v1/models"}, times=None, body=models)
    on("reset", cut_after=900, reset=True)
    on("wrong", status=400)
    on("busy", status=529)
    on("error", error_event={"type": "api_error", "message": "no"}, after_events=5)
    on("slow", events=30, pace=0.03)
    on("silent", delay=1.0)
    for account in weak:
        on("lost", account=account, reset=True, process=True)
        on("refused", account=account, status=429)
        on("broken", account=account, status=500)


def plan(count: int, keys: Sequence[str], seed: int) -> list[Wish]:
    """Return the requests; the same for the same seed."""
    rng = random.Random(seed)
    words, weights = ["", *FAULTS], [100 - sum(FAULTS.values()), *FAULTS.values()]
    found = []
    for number in range(count):
        (fault,) = rng.choices(words, weights)
        stream = fault in ("slow", "error", "reset", "leaving") or rng.random() < 0.6
        stream = stream and fault != "count"
        leaves_after = None
        if fault == "slow" and rng.random() < 0.7:
            leaves_after = rng.randrange(1, 2000)
        elif fault == "leaving":
            leaves_after = rng.randrange(1, 1200)
        word = f"cut-{rng.choice(CUTS)}" if fault == "cut" else fault
        key = NOBODY if fault == "spare" else rng.choice(keys)
        model = rng.choice(MODELS)
        found.append(Wish(number, key, model, stream, word, _usage(rng, model), leaves_after))
    return found


async def run(
    url: str, secrets: Mapping[str, str], wishes: Sequence[Wish], *, each: float, at_once: int
) -> list[Seen]:
    """Send the requests, one every `each` seconds, and return what their clients saw."""
    gate = asyncio.Semaphore(at_once)

    async def one(wish: Wish) -> Seen:
        await asyncio.sleep(wish.number * each)
        async with gate:
            return await _ask(url, secrets[wish.key], wish)

    return await asyncio.gather(*map(one, wishes))


async def _ask(url: str, secret: str, wish: Wish) -> Seen:
    seen, parts = Seen(wish), urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(_request(parts.netloc, secret, wish))
        async with asyncio.timeout(0.4 if wish.fault == "silent" else 90):
            await _read(reader, seen)
    except (ConnectionResetError, asyncio.IncompleteReadError):
        seen.ended = "cut"
    except TimeoutError:
        assert wish.fault == "silent", wish
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return seen


def _request(host: str, secret: str, wish: Wish) -> bytes:
    text = f"usage: {json.dumps(wish.usage)}\nreply: {'word ' * (20 + wish.number % 300)}"
    body = {
        "model": wish.model,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": text}],
        "stream": wish.stream,
    }
    content = json.dumps(body).encode()
    path = "/v1/messages/count_tokens" if wish.fault == "count" else "/v1/messages"
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: {host}",
        f"content-length: {len(content)}",
        "content-type: application/json",
        "user-agent: claude-cli/2.1.328 (external, sdk-cli)",
        "anthropic-version: 2023-06-01",
        f"x-api-key: {secret}",
        f"x-app: {wish.fault}",
        f"x-claude-code-session-id: s{wish.number % 97}",
        f"{NUMBER}: {wish.number}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def _read(reader: asyncio.StreamReader, seen: Seen) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    seen.status = int(head[0].split()[1])
    seen.relay_id = headers.get("x-relay-request-id", "")
    seen.upstream_id = next((v[12:] for v in head if v.lower().startswith("request-id: ")), "")
    length = headers.get("content-length")
    if length is not None:
        await _take(reader, int(length), seen)
    while length is None and (size := int((await reader.readuntil(b"\r\n")).strip(), 16)):
        await _take(reader, size, seen)
        await reader.readexactly(2)
        if seen.wish.leaves_after is not None and seen.size >= seen.wish.leaves_after:
            return
    seen.ended = "whole"


async def _take(reader: asyncio.StreamReader, size: int, seen: Seen) -> None:
    while size:
        piece = await reader.read(size)
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        seen.size += len(piece)
        size -= len(piece)


def _usage(rng: random.Random, model: str) -> dict[str, Any]:
    short, long = rng.choice([(0, 0), (rng.randrange(9000), 0), (0, 700), (31, 1301)])
    usage: dict[str, Any] = {
        "input_tokens": rng.randrange(1, 6000),
        "output_tokens": rng.randrange(2, 5000),
        "cache_read_input_tokens": rng.choice([0, rng.randrange(60_000)]),
        "cache_creation_input_tokens": short + long,
        "cache_creation": {
            "ephemeral_5m_input_tokens": short,
            "ephemeral_1h_input_tokens": long,
        },
        "service_tier": rng.choice(["standard", "standard", "priority", "batch"]),
    }
    if rng.random() < 0.1:
        usage["server_tool_use"] = {"web_search_requests": 3, "web_fetch_requests": 1}
    if rng.random() < 0.2:
        usage["output_tokens_details"] = {"thinking_tokens": usage["output_tokens"] // 2}
    if rng.random() < 0.15:
        usage["speed"] = rng.choice(["fast", "standard"])
    if rng.random() < 0.2:
        usage["inference_geo"] = rng.choice(["us", "global"])
    if rng.random() < 0.1:
        usage["iterations"] = [_part(rng, "message", model), _part(rng, "fallback_message", "")]
    elif rng.random() < 0.05:
        usage["iterations"] = [_part(rng, "compaction", None), _part(rng, "message", model)]
    return usage


def _part(rng: random.Random, kind: str, model: str | None) -> dict[str, Any]:
    counts = {
        "input_tokens": rng.randrange(3000),
        "output_tokens": rng.randrange(900),
        "cache_read_input_tokens": rng.randrange(500),
        "cache_creation_input_tokens": 60,
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 40},
    }
    named = {} if model is None else {"model": model or "claude-opus-5"}
    return {"type": kind, **named, **counts}
