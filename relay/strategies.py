"""In which order new sessions are dealt to accounts; pure."""

from __future__ import annotations

from collections.abc import Sequence


def round_robin(accounts: Sequence[int], turn: int) -> list[int]:
    """Return the accounts, beginning with the one whose turn it is."""
    start = turn % len(accounts)
    return [*accounts[start:], *accounts[:start]]
