"""In which order new sessions are dealt to accounts; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Strategy = Callable[[Sequence[int], int], list[int]]


def round_robin(accounts: Sequence[int], turn: int) -> list[int]:
    """Return the accounts, beginning with the one whose turn it is."""
    start = turn % len(accounts)
    return [*accounts[start:], *accounts[:start]]


STRATEGIES: dict[str, Strategy] = {"round_robin": round_robin}
