"""Whether this process is ending: while it drains, new requests are answered 503 `draining`."""

from __future__ import annotations

_draining = False


def begin() -> None:
    """Start draining; there is no way back but the end of the process."""
    global _draining
    _draining = True


def is_draining() -> bool:
    """Return True from the first signal to end."""
    return _draining


def reset() -> None:
    """Forget the drain (for tests)."""
    global _draining
    _draining = False
