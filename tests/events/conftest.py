"""A receiver of webhooks on loopback, and channels that lead to it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook

from events import channels, rulebook
from events.models import Channel, Rule


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Any) -> None:
    """No password is tested here; hashing the operator's would take most of the time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@dataclass
class Receiver:
    """What came, and what is answered: a status for each call, 200 when none is left."""

    url: str = ""
    answers: list[int | str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[dict[str, str], str]] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.seen]

    @property
    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.seen]

    def verified(self, secret: str) -> list[dict[str, Any]]:
        """Return the bodies, each checked by the library that receivers use."""
        return [Webhook(secret).verify(body, headers) for headers, body in self.seen]


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.CONFIG = settings.CONFIG.model_copy(update={"allow_loopback_upstreams": True})
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            answer = receiver.answers.pop(0) if receiver.answers else 200
            if answer == "break":
                self.connection.close()
                return
            receiver.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
            if answer == "hang":
                time.sleep(0.6)
                return
            if answer == "flood":
                self.send_response(200)
                self.end_headers()
                self._flood()
                return
            if answer == "stall":
                self.send_response(202)
                self.send_header("content-length", "5")
                self.end_headers()
                time.sleep(0.4)
                return
            self.send_response(int(answer))
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def _flood(self) -> None:
            try:
                for _ in range(2000):
                    self.wfile.write(b"x" * 65536)
            except OSError:
                receiver.answers.append("cut")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook?token=s3cret"
    yield receiver
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Wired:
    """A channel to the receiver, its secret, and a rule that sends everything of accounts."""

    channel: Channel
    secret: str
    rule: Rule


@pytest.fixture
def wired(receiver: Receiver, db: None) -> Wired:
    from events.models import Event

    channel, secret = channels.create("ops", receiver.url, by="ada")
    rule = rulebook.create("all of accounts", channel, ["account.*"], by="ada")
    Event.objects.all().delete()
    return Wired(channel, secret, rule)
