"""One web process: `python -m proxy_project.web FD` serves an inherited socket, and drains."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from types import FrameType

import uvicorn

from proxy_project.door import Door, NoFlood
from relay import drain

APPLICATION = "proxy_project.asgi:application"
# Requests that were cut may still write down how they ended; a refresh may have to be stored.
LAST_WORDS, CLOSE_WITHIN = 1.0, 10.0
ORPHANED = -1
NO_FLOOD = NoFlood()


Close = Callable[[], Coroutine[None, None, None]]


class WebServer(uvicorn.Server):
    """A uvicorn server with its own way to end.

    The first signal begins the drain: for `grace` seconds everything is still answered (new relay
    requests with 503, so that a load balancer looks away), then the listeners close and answers
    may run on for `seconds`; what is left is cut without its final chunk. A second signal, or the
    death of the parent, skips both waits. The exit code is 0: uvicorn's own handler would raise
    the signal again at the end. `begin` is called once it serves, `close` when it no more does.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        grace: float,
        seconds: float,
        begin: Callable[[], None] | None = None,
        close: Close | None = None,
    ) -> None:
        super().__init__(config)
        self._begin, self._close = begin, close
        self._grace, self._seconds = grace, seconds
        self._grace_end = float("inf")
        self._parent = os.getppid()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain on the first signal; hurry on any further one."""
        if drain.is_draining():
            self.force_exit = True
        else:
            drain.begin()
            self._grace_end = time.monotonic() + self._grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        if self._begin:
            self._begin()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: return True when it is time to close."""
        if counter % 10 == 0:
            self._sweep()
        if drain.is_draining():
            over = time.monotonic() >= self._grace_end or not self.server_state.connections
            self.should_exit = over or self.force_exit
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, let answers finish within the drain time, cut the rest."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._until(self._is_quiet, self._seconds)
        for connection in list(self.server_state.connections):
            if isinstance(connection, Door):
                connection.end()
        await self._until(self._is_quiet, LAST_WORDS, hurried=LAST_WORDS)
        for task in list(self.server_state.tasks):
            task.cancel()
        if self._close:
            closing = asyncio.create_task(self._close())
            await self._until(closing.done, CLOSE_WITHIN, hurried=LAST_WORDS)
            closing.cancel()

    def _is_quiet(self) -> bool:
        return not self.server_state.tasks and not self.server_state.connections

    async def _until(
        self, done: Callable[[], bool], seconds: float, *, hurried: float = 0.0
    ) -> None:
        start = time.monotonic()
        while not done():
            if time.monotonic() - start >= (hurried if self.force_exit else seconds):
                return
            self._sweep()
            await asyncio.sleep(0.02)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Door):
                connection.sweep(now)
        # Linux tells us by a signal; elsewhere an orphan would hold the port for ever.
        if os.getppid() != self._parent:
            self.handle_exit(ORPHANED, None)


def config(application: str | object = APPLICATION) -> uvicorn.Config:
    """Return uvicorn's configuration: what a request costs and shows is decided here."""
    logging.getLogger("uvicorn.error").addFilter(NO_FLOOD)
    return uvicorn.Config(
        application,  # type: ignore[arg-type]
        loop="uvloop",
        http=Door,
        ws="websockets-sansio",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_keep_alive=75,
    )


def main() -> None:
    """Serve the listening socket whose descriptor is named on the command line."""
    # Setting up Django reads the settings, so not on import: tests use WebServer without them.
    from django.conf import settings

    listener = socket.socket(fileno=int(sys.argv[1]))
    listener.setblocking(False)
    loaded = config()
    loaded.load()

    from relay import closing
    from sessions_limit import presence

    gc.collect()
    gc.freeze()
    server = WebServer(
        loaded,
        grace=settings.CONFIG.drain_grace,
        seconds=settings.CONFIG.drain_seconds,
        # The others are to know of this process before its first client comes.
        begin=presence.keep_beating,
        close=closing.close,
    )
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
