"""What a model is called at a compatible endpoint, and a body that asks for it there; pure."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from providers.base import Endpoint

# Clients write the long context behind the name; an endpoint knows the model without it.
CONTEXT = re.compile(r"\[\w+\]$", re.ASCII)
MODEL = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
MOST_PLACES = 8


class _Body(msgspec.Struct):
    model: str


_decoder = msgspec.json.Decoder(_Body)
_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])


def mapped(model: str, endpoint: Endpoint) -> str | None:
    """Return what the endpoint calls a model, by the first pattern that fits; None if none does."""
    name = CONTEXT.sub("", model)
    fitting = (theirs for ours, theirs in endpoint.model_map if _pattern(ours).fullmatch(name))
    return next(fitting, None)


def with_model(body: bytes, model: str) -> bytes:
    """Return the body with another model at its top level, and every other byte as it was.

    Only a body that hides its model (an escaped name, many other places that look like it) is put
    together anew, from its parts as they were written. One that cannot be read stays as it is.
    """
    try:
        if _decoder.decode(body).model == model:
            return body
        for number, place in enumerate(MODEL.finditer(body)):
            if number == MOST_PLACES:
                break
            made = body[: place.start(1)] + msgspec.json.encode(model) + body[place.end(1) :]
            # A model further down has the same look; only the right place changes the meaning.
            if _decoder.decode(made).model == model:
                return made
        parts = _parts.decode(body)
        return msgspec.json.encode(parts | {"model": msgspec.Raw(msgspec.json.encode(model))})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body


@lru_cache(1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)
