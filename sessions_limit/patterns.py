"""Which models a key may use, by the patterns of their names; pure."""

from __future__ import annotations

import functools
from fnmatch import fnmatchcase

LONGEST_MODEL = 256


def allows(patterns: tuple[str, ...], model: str) -> bool:
    """Tell whether a key with these patterns may use a model; `*` and `?` stand for anything."""
    if not patterns:
        return True
    # No model has so long a name, and nobody shall fill the memory with names.
    return len(model) <= LONGEST_MODEL and _matches(patterns, model)


@functools.lru_cache(maxsize=1024)
def _matches(patterns: tuple[str, ...], model: str) -> bool:
    # A bracket means itself, as in "model[1m]".
    return any(fnmatchcase(model, pattern.replace("[", "[[]")) for pattern in patterns)
