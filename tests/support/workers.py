"""Threads that run one verb each and stop between what it read and what it will write."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connection, connections

WRITES = ("INSERT", "UPDATE", "DELETE")
PATIENCE = 20.0


class Worker:
    """One worker; whoever drives it lets it go on from one stop to the next.

    It stops before each transaction that writes, when it holds no lock, so all others can go on.
    """

    def __init__(self) -> None:
        self.busy = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._verb: Callable[[], Any] | None = None
        self._go, self._rest = threading.Semaphore(0), threading.Semaphore(0)
        self._has_written = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self, verb: Callable[[], Any]) -> None:
        """Run a verb up to its first stop, or to its end."""
        self.busy, self._verb, self.result, self.error = True, verb, None, None
        self.go_on()

    def go_on(self) -> None:
        """Let the verb run to its next stop, or to its end."""
        self._go.release()
        assert self._rest.acquire(timeout=PATIENCE), "a worker waits for a lock"

    def end(self) -> None:
        """End the thread, and its connection with it."""
        self._verb = None
        self._go.release()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        with connection.execute_wrapper(self._stop):
            while self._wait() and self._verb is not None:
                try:
                    self.result = self._verb()
                except BaseException as error:
                    self.error = error
                self.busy = False
                self._rest.release()
        connections.close_all()

    def _wait(self) -> bool:
        self._has_written = False
        return self._go.acquire()

    def _stop(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if not connection.in_atomic_block:
            self._has_written = False
        if self._begins_to_write(sql) and not self._has_written:
            self._rest.release()
            self._go.acquire()
            # Whatever follows in this transaction is done with its locks.
            self._has_written = connection.in_atomic_block or sql.startswith("BEGIN")
            if self._has_written:
                connection.run_on_commit.append((set(), self._forget, True))
        return execute(sql, params, many, context)

    def _begins_to_write(self, sql: str) -> bool:
        # On SQLite every transaction of ours takes the one lock when it begins.
        return sql.startswith(("BEGIN", *WRITES))

    def _forget(self) -> None:
        self._has_written = False
