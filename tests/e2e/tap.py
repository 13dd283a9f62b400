"""Stands between a client and the relay and keeps what the client sent, byte for byte."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Tap:
    """Passes connections on to a port; `bodies()` are the request bodies seen so far."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sent: list[bytearray] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._listener.close()

    def bodies(self) -> list[bytes]:
        """Return the bodies of all requests, by their content-length."""
        return [body for sent in self._sent for body in _split(bytes(sent))]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                relay = socket.create_connection(("127.0.0.1", self._port))
                sent = bytearray()
                self._sent.append(sent)
                threading.Thread(target=_pump, args=(client, relay, sent), daemon=True).start()
                threading.Thread(target=_pump, args=(relay, client, None), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if kept is not None:
                kept += data
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _split(sent: bytes) -> list[bytes]:
    bodies = []
    while sent:
        head, _, rest = sent.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        bodies.append(rest[:length])
        sent = rest[length:]
    return bodies
