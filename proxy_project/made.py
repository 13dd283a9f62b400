"""Secrets that nobody gave: made once, on the first start, and kept in the data folder."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from pathlib import Path


def kept(path: Path) -> str:
    """Return the secret in the file `path`; make it (mode 0600, its folder 0700) if it is new.

    Two processes that start at once get the same one. Raises OSError, or ValueError for a file
    that holds no text.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        _make(path)
    return path.read_text(encoding="ascii").strip()


def _make(path: Path) -> None:
    fresh = path.with_name(f".{path.stem}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(base64.b64encode(secrets.token_bytes(32)).decode())
            file.flush()
            os.fsync(file.fileno())
        # A hard link neither replaces another process's secret nor ever shows half of one.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink()
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """See to it that a power cut does not take the name of a secret that is in use already."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
