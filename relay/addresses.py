"""The relay's own address, and where it stands in an answer instead of the upstream's; pure."""

from __future__ import annotations

import re

import msgspec
import orjson

from relay.endpoints import BATCH
from relay.request import first

RESULTS_URL = re.compile(rb'("results_url"\s*:\s*)"(?:[^"\\]|\\.)*"')
RESULTS = re.compile(
    rb'("results_url"\s*:\s*")[a-z]+://[^/"\\]+(/v1/messages/batches/[A-Za-z0-9._:@-]+/results")'
)


class _Batch(msgspec.Struct):
    id: str
    results_url: str | None = None


_decoder = msgspec.json.Decoder(_Batch)


def own(public_url: str, scheme: str, headers: tuple[tuple[bytes, bytes], ...]) -> str:
    """Return the address by which a client knows this relay: PUBLIC_URL, or the one it used."""
    return public_url or f"{scheme}://{first(headers, b'host').decode('latin-1')}"


def with_own_results(batch: bytes, base: str) -> bytes:
    """Return a batch object whose `results_url` leads here; every other byte stays.

    Clients follow that address with the credential they have, which is the relay's.
    """
    try:
        known = _decoder.decode(batch)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return batch
    if known.results_url is None:
        return batch
    url = orjson.dumps(f"{base}{BATCH.path}/{known.id}/results")
    return RESULTS_URL.sub(lambda found: found[1] + url, batch, count=1)


def with_results_here(answer: bytes, base: str) -> bytes:
    """Return an answer whose every `results_url` leads to the same path here; the rest stays."""
    origin = orjson.dumps(base)[1:-1]
    return RESULTS.sub(lambda found: found[1] + origin + found[2], answer)
