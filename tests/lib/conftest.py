"""A Valkey of the test's own, which may be stopped, frozen and emptied."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from lib import bus, db
from lib import redis as clients
from proxy_project import valkey
from proxy_project.supervisor import dying_with_parent


class OwnValkey:
    """A server that keeps what it has when it is killed."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            valkey.command(self.socket, self._folder, durable=True),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=dying_with_parent(),
        )
        assert valkey.wait_until_up(self.socket)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def kill_and_forget(self) -> None:
        """Kill it, and take away what it has kept."""
        self.kill()
        for kept in self._folder.iterdir():
            shutil.rmtree(kept) if kept.is_dir() else kept.unlink()

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True, protocol=2)


@pytest.fixture
def own_valkey(settings: Any) -> Iterator[OwnValkey]:
    """Start it and let the product use it."""
    folder = tempfile.mkdtemp(prefix="carousel-own-", dir="/tmp")
    server = OwnValkey(Path(folder))
    server.start()
    settings.REDIS_URL = server.url
    yield server
    server.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def loop_ends(own_valkey: OwnValkey) -> AsyncIterator[None]:
    """Leave nothing of the test's loop behind."""
    yield
    await bus.stop()
    await clients.close()
    db.reset()
