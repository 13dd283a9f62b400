"""A receiver of webhooks on loopback that verifies each as it comes, by the time it lives in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook


@dataclass
class Inbox:
    """What arrived, and when; what does not verify with `secret` is refused."""

    url: str
    secret: str = ""
    seen: list[tuple[datetime, dict[str, Any]]] = field(default_factory=list)
    refused: int = 0

    def take(self, body: str, headers: dict[str, str]) -> int:
        """Return the status to answer."""
        try:
            told = Webhook(self.secret).verify(body, headers)
        except Exception:
            self.refused += 1
            return 400
        self.seen.append((datetime.now(UTC), told))
        return 200


@contextmanager
def listening() -> Iterator[Inbox]:
    """Receive on any free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            self.send_response(inbox.take(body, dict(self.headers.items())))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    inbox = Inbox(f"http://127.0.0.1:{server.server_port}/alerts")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield inbox
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
