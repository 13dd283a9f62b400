"""One running `manage.py serve`, seen as its operator sees it."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SETTINGS = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "KEY_PEPPER", "CREDENTIAL_KEYS")


class Serve:
    """One running `serve` and what it has said so far."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        env = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        env |= {"CAROUSEL_DATA_DIR": str(folder / "data"), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "manage.py", "serve", "--workers", "1", *arguments],
            cwd=folder,
            env=env | settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            self._lines.put(line.rstrip())

    def hears(self, pattern: str, within: float = 20.0) -> re.Match[str]:
        """Wait for a line that matches."""
        end = time.monotonic() + within
        with contextlib.suppress(queue.Empty):
            while True:
                line = self._lines.get(timeout=max(0.01, end - time.monotonic()))
                if found := re.search(pattern, line):
                    return found
        pytest.fail(f"{pattern!r} was not said:\n" + "\n".join(self.said))

    def is_ready(self) -> int:
        """Wait until it says so, and return the port."""
        return int(self.hears(r"console +http://127\.0\.0\.1:(\d+)/", within=60.0)[1])

    def children(self) -> dict[str, psutil.Process]:
        """Return the children by a word of their command line."""
        words = {"proxy_project.web": "web", "worker": "worker", "beat": "beat"}
        found = {}
        for child in psutil.Process(self.process.pid).children():
            line = child.cmdline()
            name = next((name for word, name in words.items() if word in line), "valkey")
            found[name] = child
        return found

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ends(self, within: float) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(within)

    def end(self) -> None:
        """End it whatever it is doing."""
        if self.process.poll() is not None:
            return
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.ends(5)
        self.process.kill()
        self.ends(5)
