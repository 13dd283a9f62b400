"""Which names of models may become labels of metrics: clients choose names, so not all of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from functools import cache

import genai_prices.data
from django.apps import apps

from usage import pricing
from usage.models import Price

OTHER = "other"
FRESH_SECONDS = 60.0

_read: tuple[float, frozenset[str]] = (float("-inf"), frozenset())


def label(model: str, known: Collection[str]) -> str:
    """Return a model's name, or the one it has without its day, or "other"; "" stays nothing."""
    if not model or model in known:
        return model
    undated = pricing.undated(model)
    return undated if undated in known else OTHER


def known() -> frozenset[str]:
    """Return the names that an account lists or maps, or that have a price; read now and then."""
    global _read
    read_at, names = _read
    if time.monotonic() - read_at > FRESH_SECONDS:
        names = _priced() | frozenset(_listed())
        _read = time.monotonic(), names
    return names


def reset() -> None:
    """Forget what was read (for tests)."""
    global _read
    _read = float("-inf"), frozenset()


def _listed() -> Iterator[str]:
    for data in apps.get_model("relay.ModelList")._default_manager.values_list("data", flat=True):
        yield from (str(model.get("id", "")) for model in data)
    accounts = apps.get_model("accounts.Account")._default_manager.filter(deleted_at=None)
    for mapped in accounts.values_list("model_map", flat=True):
        yield from mapped
    yield from Price.objects.values_list("model", flat=True)


@cache
def _priced() -> frozenset[str]:
    found = [one for one in genai_prices.data.providers if one.id == "anthropic"]
    return frozenset(model.id for one in found for model in one.models)
