"""Which facts of records the sums tell apart.

Sums that tell everything apart answer any question, slowly; the smaller ones answer what most pages
ask. A question is answered from the first that knows all it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ACCOUNT = ("account", "organization", "provider")
OUTCOME = ("endpoint", "status", "ended", "verdict")
FACTS = (*ACCOUNT, "key", "model", *OUTCOME)
EACH = "each"
GROUPINGS: Mapping[str, tuple[str, ...]] = {
    "all": (),
    "account": ACCOUNT,
    "key": ("key",),
    "model": ("model",),
    "outcome": OUTCOME,
    EACH: FACTS,
}
LATENCIES: Mapping[str, tuple[str, ...]] = {
    "all": (),
    "account": ("account",),
    "key": ("key",),
    "model": ("model",),
}
NUMBERS = frozenset({"account", "key", "status"})
SUMS = (
    "requests",
    "successes",
    "errors",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "thinking_tokens",
    "web_searches",
    "cost",
    "saved",
    "unpriced",
    "partial",
    "double_billed",
    "bytes_received",
    "bytes_sent",
)


def knowing(facts: Iterable[str], among: Mapping[str, tuple[str, ...]] = GROUPINGS) -> str | None:
    """Return the first grouping that tells these facts apart; None when there is none."""
    wanted = set(facts)
    return next((name for name, known in among.items() if wanted <= set(known)), None)
