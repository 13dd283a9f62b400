"""`manage.py serve`: everything Carousel needs, started, watched and stopped together."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError, CommandParser, call_command
from django.db import connection, connections

from lib.redaction import redact
from proxy_project import demo, logs, parts, setup, valkey
from proxy_project.lock import Taken, hold
from proxy_project.supervisor import ChildFailed, Supervisor

PARTS = ("web", "worker", "beat")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
BACKLOG = 2048
READY_WITHIN = 60.0
# Patience on the first signal; the worker's longest wait is that for SQLite's lock.
MARGIN, BEAT_ENDS, WORKER_ENDS, REST_ENDS = 15.0, 5.0, 25.0, 10.0
# Any number, but the same in every process that migrates.
MIGRATION_LOCK = 727_265


class Command(BaseCommand):
    """Start Carousel, or one part of it, and keep it up until a signal."""

    help = "Run Carousel until Ctrl-C: web processes, worker, beat and, without REDIS_URL, Valkey."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--workers", type=int, default=_cores(), help="web processes")
        parser.add_argument("--only", choices=PARTS, help="run one part; needs REDIS_URL")
        parser.add_argument("--demo", action="store_true", help="a throwaway, simulated pool")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a signal; raise CommandError when something cannot start."""
        self.config, self.data = settings.CONFIG, settings.CONFIG.data_dir
        self.host, self.port = options["host"], options["port"]
        self.workers, self.only, self.demo = options["workers"], options["only"], options["demo"]
        if self.only and not self.config.redis_url:
            raise CommandError("--only needs REDIS_URL: it is where the parts of Carousel meet")
        if self.workers < 1:
            raise CommandError("--workers must be at least 1")
        try:
            if self.demo:
                demo.check(self.data)
            with hold(self.data / (f"serve-{self.only}.lock" if self.only else demo.LOCK)):
                self._run()
        except (Taken, ChildFailed, valkey.ValkeyError, demo.NotOurs) as error:
            raise CommandError(str(error)) from None

    def _run(self) -> None:
        self.children = Supervisor(self._say, self._show)
        self.children.take_signals()
        with self._listener() as listener:
            try:
                self._start(listener)
                self.children.watch()
                patience = f"{self.config.drain_seconds:g} s, or until a second signal"
                self._say(f"stopping{f'; running answers have {patience}' if listener else ''}")
            finally:
                if listener:
                    # Else the kernel would go on accepting connections that nobody serves.
                    listener.close()
                self._stop()
        self._say("stopped")

    def _start(self, listener: socket.socket | None) -> None:
        if self.demo:
            demo.clear(self.data)
            demo.keep_settings(self.data)
        env = parts.environment(self.config.redis_url or self._start_valkey())
        # For what this process itself does below: it has read its settings before Valkey ran.
        settings.REDIS_URL = env["REDIS_URL"]
        if self.only in (None, "web"):
            _migrate()
        if self.demo:
            self._start_demo(env)
        if self.only in (None, "worker"):
            self.children.start(parts.worker(env))
        if self.only in (None, "beat"):
            self.children.start(parts.beat(env, self.data))
        if listener:
            for number in range(1, self.workers + 1):
                self.children.start(parts.web(number, listener.fileno(), env))
            self._await_health()
            self._welcome()
        connections.close_all()

    def _stop(self) -> None:
        self.children.stop("web", self.config.drain_grace + self.config.drain_seconds + MARGIN)
        self.children.stop("beat", BEAT_ENDS)
        self.children.stop("worker", WORKER_ENDS)
        self.children.stop("simulator", REST_ENDS)
        self.children.stop("valkey", REST_ENDS)
        if not self.config.redis_url:
            valkey.remove(valkey.socket_path(self.data))

    @contextlib.contextmanager
    def _listener(self) -> Iterator[socket.socket | None]:
        """Bind here, so that a process that dies takes no waiting client with it."""
        if self.only in ("worker", "beat"):
            yield None
            return
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            address = (self.host, self.port)
            listener = socket.create_server(address, family=family, backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if number and number > 0 else error
            raise CommandError(f"cannot listen on {self.host}:{self.port}: {reason}") from None
        self.port = listener.getsockname()[1]
        if self.host not in LOOPBACK and not self.config.public_url:
            self._say("warning: PUBLIC_URL is empty, so the console answers to localhost only")
        if self.config.session_limit and self.config.session_fail_mode == "open":
            self._say("warning: SESSION_FAIL_MODE=open limits no sessions while Redis is away")
        with listener:
            yield listener

    def _start_valkey(self) -> str:
        path = valkey.socket_path(self.data)
        if valkey.stop_orphan(path):
            self._say("stopped the valkey of an earlier start")
        self.children.start(parts.private_valkey(path, self.data))
        end = time.monotonic() + READY_WITHIN
        self.children.watch(until=lambda: valkey.answers(path) or time.monotonic() > end)
        return f"unix://{path}"

    def _start_demo(self, env: parts.Env) -> None:
        url = self.config.upstream_base_url
        self.children.start(demo.simulator(url, env))
        end = time.monotonic() + READY_WITHIN
        self.children.watch(until=lambda: demo.answers(url) or time.monotonic() > end)
        if not self.children.stopping:
            demo.link_accounts(url)
            self.key = demo.make_key()

    def _await_health(self) -> None:
        end = time.monotonic() + READY_WITHIN
        self._probe = self._ask_for_health()
        self.children.watch(until=lambda: self._is_healthy() or time.monotonic() > end)
        self._probe.close()
        if time.monotonic() > end:
            raise CommandError("the web processes do not answer GET /health")

    def _ask_for_health(self) -> socket.socket:
        probe = socket.create_connection((self._reachable_host(), self.port))
        probe.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        return probe

    def _is_healthy(self) -> bool:
        """Look without waiting: until a process takes it, the question is in the socket's queue."""
        if not select.select([self._probe], [], [], 0)[0]:
            return False
        # Any answer will do: 503 tells what is missing, and the operator may have to add it.
        with contextlib.suppress(ConnectionError):
            if self._probe.recv(1):
                return True
        self._probe.close()
        self._probe = self._ask_for_health()
        return False

    def _welcome(self) -> None:
        if self.children.stopping:
            return
        host = self._reachable_host()
        local = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        base = self.config.public_url or local
        self._say(f"ready\n\n  console    {base}/")
        if link := setup.make_link(base):
            self._say(f"  set-up     {link}")
            self._say("             (creates the first operator, once, within an hour)")
        if self.demo:
            self._say(f"  relay key  {self.key}\n  commands   {demo.command()}")
            self._say("\nThe upstream is a simulator with accounts of its own. Try it:")
            self._say(f"\n  {demo.curl(base, self.key)}")
        again = "; the next demo begins anew" if self.demo else ""
        self._say(f"\nCtrl-C stops everything{again}.\n")

    def _reachable_host(self) -> str:
        wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
        return wildcards.get(self.host) or str(self.host)

    def _say(self, line: str) -> None:
        self._print(logs.said(line) if self.config.log_format == "json" else line)

    def _show(self, line: str) -> None:
        """Pass on what a child said: its log as it is; what it said besides, so that it fits."""
        if self.config.log_format != "json" or line.startswith("{"):
            self._print(line)
        elif line.strip():
            self._print(logs.said(redact(line)))

    def _print(self, line: str) -> None:
        # The terminal may be gone, and then there is nobody to tell.
        with contextlib.suppress(OSError):
            self.stdout.write(line)
            self.stdout.flush()


def _migrate() -> None:
    """Bring the database up to date; on PostgreSQL one process at a time."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
    call_command("migrate", interactive=False, verbosity=0)
    # The end of the connection is the end of its lock.
    connections.close_all()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
