"""`manage.py serve` with real processes: it starts, heals, refuses and ends as expected."""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SETTINGS = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "KEY_PEPPER", "CREDENTIAL_KEYS")


class Serve:
    """One running `serve` and what it has said so far."""

    def __init__(self, data: Path, *arguments: str, **settings: str) -> None:
        env = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "serve", "--workers", "1", *arguments],
            cwd=ROOT,
            env=env | {"CAROUSEL_DATA_DIR": str(data), "PYTHONUNBUFFERED": "1"} | settings,
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
        return int(self.hears(r"console +http://127\.0\.0\.1:(\d+)/")[1])

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


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    started: list[Serve] = []

    def start(*arguments: str, **settings: str) -> Serve:
        arguments = arguments or ("--port", "0")
        started.append(Serve(tmp_path / "data", *arguments, **settings))
        return started[-1]

    yield start

    for one in started:
        if one.process.poll() is None:
            one.signal(signal.SIGTERM)
            one.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.ends(5)
            one.process.kill()
            one.ends(5)


def health(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/health")
        return connection.getresponse().status


def gone(children: dict[str, psutil.Process], within: float) -> bool:
    _, alive = psutil.wait_procs(list(children.values()), timeout=within)
    return not alive


def test_it_starts_answers_and_ends_without_leaving_anything(serve):
    server = serve()
    port = server.is_ready()
    link = server.hears(r"http://127\.0\.0\.1:\d+/setup/\S{20,}")
    children = server.children()

    assert health(port) in (200, 503)
    assert str(port) in link[0]
    assert set(children) == {"web", "worker", "beat", "valkey"}

    server.signal(signal.SIGTERM)

    assert server.ends(15) == 0
    assert gone(children, 0.5)
    assert server.said[-1] == "stopped"


def test_a_second_serve_on_the_same_folder_is_refused(serve):
    first = serve()
    first.is_ready()

    second = serve()

    assert second.ends(10) == 1
    second.hears(rf"another serve \(pid {first.process.pid}\) runs on ")


def test_an_occupied_port_is_refused(serve):
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = serve("--port", str(other.getsockname()[1]))

        assert server.ends(10) == 1
        server.hears(r"cannot listen on 127\.0\.0\.1:\d+: Address already in use")


def test_a_killed_web_process_is_replaced_and_no_client_refused(serve):
    server = serve()
    port = server.is_ready()
    killed = server.children()["web"]

    killed.kill()

    assert health(port) in (200, 503)
    server.hears(rf"web 1 \(pid {killed.pid}\) ended with signal 9; starting it again")


def test_a_killed_valkey_is_replaced(serve):
    server = serve()
    server.is_ready()
    killed = server.children()["valkey"]

    killed.kill()

    server.hears(rf"valkey \(pid {killed.pid}\) ended with signal 9; starting it again")
    time.sleep(0.5)
    assert server.children()["valkey"].pid != killed.pid


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux only")
def test_when_serve_is_killed_all_its_children_end(serve):
    server = serve()
    server.is_ready()
    children = server.children()

    server.process.kill()

    assert gone(children, 3)


def test_a_first_signal_drains_and_a_second_ends_all_at_once(serve):
    server = serve(DRAIN_GRACE="30")
    port = server.is_ready()
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    kept.request("GET", "/health")
    kept.getresponse().read()

    server.signal(signal.SIGINT)
    server.hears("stopping; ")
    time.sleep(0.5)
    kept.request("GET", "/health")
    answer = kept.getresponse()
    children = server.children()
    started = time.monotonic()
    server.signal(signal.SIGINT)

    assert answer.status in (200, 503)
    assert server.ends(5) == 0
    assert time.monotonic() - started < 2
    assert gone(children, 0)


def test_one_part_alone_needs_a_redis_to_meet_the_others(serve):
    server = serve("--only", "worker")

    assert server.ends(10) == 1
    server.hears("--only needs REDIS_URL")


def test_a_child_that_cannot_start_ends_serve_with_its_last_lines(serve, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'proxy_project.web' in sys.orig_argv: sys.exit('no luck today')\n"
    )

    server = serve(PYTHONPATH=str(tmp_path))

    assert server.ends(30) == 1
    assert [line for line in server.said if "web 1 does not start; its last lines:" in line]
    assert "no luck today" in server.said[-1]
