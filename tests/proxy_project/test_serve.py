"""`manage.py serve` with real processes: it starts, heals, refuses and ends as expected."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.serving import Serve


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    started: list[Serve] = []

    def start(*arguments: str, **settings: str) -> Serve:
        arguments = arguments or ("--port", "0")
        started.append(Serve(tmp_path, *arguments, **settings))
        return started[-1]

    yield start

    for one in started:
        one.end()


def health(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/health")
        return connection.getresponse().status


def gone(children: dict[str, psutil.Process], within: float) -> bool:
    end = time.monotonic() + within
    while any(is_alive(child) for child in children.values()):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def is_alive(child: psutil.Process) -> bool:
    # An orphan that has ended stays a zombie until init looks, which may take a second.
    with contextlib.suppress(psutil.NoSuchProcess):
        return child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    return False


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


@pytest.mark.slow
def test_with_json_every_line_of_it_and_of_its_children_is_an_object(serve):
    server = serve(LOG_FORMAT="json", LOG_LEVEL="DEBUG")
    server.is_ready()

    server.signal(signal.SIGTERM)

    assert server.ends(20) == 0
    lines = [json.loads(line) for line in server.said]
    assert all({"timestamp", "level", "logger", "event"} <= line.keys() for line in lines)
    assert lines[-1]["event"] == "stopped"


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_killed_web_process_is_replaced_and_no_client_refused(serve):
    server = serve()
    port = server.is_ready()
    killed = server.children()["web"]

    killed.kill()

    assert health(port) in (200, 503)
    server.hears(rf"web 1 \(pid {killed.pid}\) ended with signal 9; starting it again")


@pytest.mark.slow
def test_a_killed_valkey_is_replaced(serve):
    server = serve()
    server.is_ready()
    killed = server.children()["valkey"]

    killed.kill()

    server.hears(rf"valkey \(pid {killed.pid}\) ended with signal 9; starting it again")
    time.sleep(0.5)
    assert server.children()["valkey"].pid != killed.pid


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux only")
def test_when_serve_is_killed_all_its_children_end(serve):
    server = serve()
    server.is_ready()
    children = server.children()

    server.process.kill()

    assert gone(children, 3)


@pytest.mark.slow
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
    # Under 2 s on a machine of its own; the suite keeps all cores busy. Without: 30 s and more.
    assert time.monotonic() - started < 4
    assert gone(children, 0)


@pytest.mark.slow
def test_one_part_alone_needs_a_redis_to_meet_the_others(serve):
    server = serve("--only", "worker")

    assert server.ends(10) == 1
    server.hears("--only needs REDIS_URL")


@pytest.mark.slow
def test_a_child_that_cannot_start_ends_serve_with_its_last_lines(serve, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'proxy_project.web' in sys.orig_argv: sys.exit('no luck today')\n"
    )

    server = serve(PYTHONPATH=str(tmp_path))

    assert server.ends(30) == 1
    assert [line for line in server.said if "web 1 does not start; its last lines:" in line]
    assert "no luck today" in server.said[-1]
