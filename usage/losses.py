"""What was lost on the way to the database is said in the journal."""

from __future__ import annotations

from events import journal
from lib import counters


def note(stream: str, count: int) -> None:
    """Record that so many rows of a stream had to be dropped while Redis was away or emptied."""
    journal.record("usage.lost", f"stream:{stream}", count=count)
    counters.add("lost_rows", stream, by=count)
