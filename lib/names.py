"""Names that people give to things: one line, nothing hidden."""

from __future__ import annotations


def plain(text: str) -> str:
    """Return a name without what cannot be seen, such as marks that turn the text around."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
