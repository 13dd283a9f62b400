"""The labels of a key: which accounts it may use; pure."""

from __future__ import annotations

import re
from collections.abc import Collection

MOST_LABELS = 20
# The labels of accounts have the same shape.
LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}", re.ASCII)


def checked(labels: Collection[str]) -> list[str]:
    """Return the labels in order, each once; raise ValueError for what is none, and too many."""
    given = sorted(set(labels))
    if odd := [label for label in given if not LABEL.fullmatch(label)]:
        raise ValueError(
            f"{odd[0][:40]!r} is not a label: 1 to 32 of a-z, 0-9, dot, hyphen and underscore"
        )
    if len(given) > MOST_LABELS:
        raise ValueError(f"a key has {MOST_LABELS} labels at most")
    return given
